CREATE TABLE settings (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) STRICT;

-- The current documents, each as its whole JSON.
CREATE TABLE resources (
  key TEXT PRIMARY KEY NOT NULL,
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  origin TEXT NOT NULL CHECK (origin IN ('document', 'registration')),
  created INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  t INTEGER NOT NULL
) STRICT;

-- Every accepted change with the documents before and after it, chained by hash.
CREATE TABLE revisions (
  number INTEGER PRIMARY KEY NOT NULL,
  hash TEXT NOT NULL,
  author TEXT NOT NULL,
  message TEXT NOT NULL,
  t INTEGER NOT NULL,
  changes TEXT NOT NULL,
  bus_rev INTEGER
) STRICT;

-- What was last published under each key of the bus.
CREATE TABLE documents (
  key TEXT PRIMARY KEY NOT NULL,
  op TEXT NOT NULL CHECK (op IN ('put', 'del')),
  epoch INTEGER NOT NULL,
  rev INTEGER NOT NULL,
  t INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;

CREATE TABLE workloads (
  instance TEXT PRIMARY KEY NOT NULL,
  namespace TEXT NOT NULL,
  service TEXT NOT NULL,
  service_account TEXT NOT NULL,
  identity TEXT NOT NULL,
  token_id TEXT NOT NULL,
  joined_at INTEGER NOT NULL,
  boot TEXT,
  shard INTEGER,
  registration TEXT,
  registered_at INTEGER,
  last_seen INTEGER
) STRICT;
CREATE INDEX workloads_by_service ON workloads (namespace, service);

-- Services an instance may read beyond those it declared.
CREATE TABLE grants (
  instance TEXT NOT NULL REFERENCES workloads (instance) ON DELETE CASCADE,
  namespace TEXT NOT NULL,
  service TEXT NOT NULL,
  t INTEGER NOT NULL,
  PRIMARY KEY (instance, namespace, service)
) STRICT;

CREATE TABLE certificates (
  serial TEXT PRIMARY KEY NOT NULL,
  instance TEXT NOT NULL,
  identity TEXT NOT NULL,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  issued_at INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_by_instance ON certificates (instance, not_after);

CREATE TABLE tokens (
  id TEXT PRIMARY KEY NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('admin', 'join')),
  secret_hash TEXT NOT NULL,
  scope TEXT NOT NULL,
  description TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  once INTEGER NOT NULL,
  used_at INTEGER,
  revoked_at INTEGER
) STRICT;

-- Each row's hash covers the row before it: nothing can be taken out unnoticed.
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY NOT NULL,
  t INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
