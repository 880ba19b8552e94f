/** Small facts that outlive a restart: epoch, revision of the bus, trust domain. */
import { eq } from "drizzle-orm";
import { settings } from "./schema.ts";
import type { Store } from "./store.ts";

export type SettingKey = "epoch" | "busRev" | "busPrev" | "trustDomain" | "restored" | "meshId";

export function setting(store: Store, key: SettingKey): string | undefined {
  return store.db.select().from(settings).where(eq(settings.key, key)).get()?.value;
}

/** A whole number; `fallback` when it was never set. */
export function numberSetting(store: Store, key: SettingKey, fallback = 0): number {
  const value = setting(store, key);
  return value === undefined ? fallback : Number(value);
}

export function putSetting(store: Store, key: SettingKey, value: string | number): void {
  const text = String(value);
  store.write(() =>
    store.db
      .insert(settings)
      .values({ key, value: text })
      .onConflictDoUpdate({ target: settings.key, set: { value: text } })
      .run(),
  );
}

export function dropSetting(store: Store, key: SettingKey): void {
  store.write(() => store.db.delete(settings).where(eq(settings.key, key)).run());
}
