/** A place, as `region`, `region/zone` or `region/zone/subzone`. */
export const LOCALITY = /^[a-z0-9][-a-z0-9]{0,62}(?:\/[a-z0-9][-a-z0-9]{0,62}){0,2}$/;
