/** Which certificates were issued, to whom, and until when. */
import { desc, eq, lt, max } from "drizzle-orm";
import type { CertificateRow } from "./rows.ts";
import { certificates } from "./schema.ts";
import type { Store } from "./store.ts";

export function putCertificate(store: Store, row: CertificateRow): void {
  store.write(() => store.db.insert(certificates).values(row).run());
}

/** Of one instance, the newest first. */
export function certificatesOf(store: Store, instance: string): CertificateRow[] {
  return store.db
    .select()
    .from(certificates)
    .where(eq(certificates.instance, instance))
    .orderBy(desc(certificates.notAfter))
    .all();
}

/** Of the newest certificate of each instance; unix milliseconds. */
export interface CertificateLife {
  readonly issuedAt: number;
  readonly notAfter: number;
}

export function certificateLives(store: Store): Map<string, CertificateLife> {
  const rows = store.db
    .select({
      instance: certificates.instance,
      issuedAt: max(certificates.issuedAt),
      notAfter: max(certificates.notAfter),
    })
    .from(certificates)
    .groupBy(certificates.instance)
    .all();
  return new Map(
    rows.map(({ instance, issuedAt, notAfter }) => [
      instance,
      { issuedAt: issuedAt ?? 0, notAfter: notAfter ?? 0 },
    ]),
  );
}

/** Drops certificates that ran out before `t`. */
export function pruneCertificates(store: Store, t: number): void {
  store.write(() => store.db.delete(certificates).where(lt(certificates.notAfter, t)).run());
}
