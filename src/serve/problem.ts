import { statusText } from "../http/h1/encode.ts";

/** What the server itself has to say, before or instead of the application (RFC 9457). */
export function problemJson(status: number, code: string, detail: string, fix: string): string {
  const title = statusText(status);
  return JSON.stringify({ type: "about:blank", title, status, detail, code, fix });
}

export const PROBLEM_TYPE = "content-type: application/problem+json\r\n";
