/** What this executable is. The build bakes both values in. */
declare const WEFT_VERSION: string;
declare const WEFT_COMMIT: string;

/** Semantic version, `0.1.0-dev` when run from source. */
export const VERSION: string = typeof WEFT_VERSION === "string" ? WEFT_VERSION : "0.1.0-dev";

/** Short commit, `-dirty` if the tree had changes; `source` when run from source. */
export const COMMIT: string = typeof WEFT_COMMIT === "string" ? WEFT_COMMIT : "source";
