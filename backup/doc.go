// Package backup packs a whole application into one file and makes a running
// application of such a file again, here or elsewhere. It imports the standard
// library, zstd and age only; what it does to containers goes through a Platform,
// where files go through a Store.
//
// # Glossary
//
//   - app: what is needed to run something again: containers with all their
//     settings, images, networks, volumes, routes. A compose project, a group of
//     containers with the same label dentropy.app, or one container.
//   - platform: one engine that runs apps (a Docker Engine; later a cluster).
//   - volume: one tree of files of an app: a named or anonymous volume, a bind
//     mount, the project's folder.
//   - capture: to read what an app is. Changes nothing.
//   - freeze: to bring an app to rest, read its volumes into the transit volume, and
//     bring it back.
//   - transit: where frozen data waits, beside the engine, until it is in the archive.
//   - archive: the file. Its format is in docs/archive-format.md.
//   - store: where archives are kept.
//   - journal: what an operation is about to do and has done, on disk before it does
//     it. Replaying it brings everything back after a crash.
//   - guard: a container that does the same where this program is gone.
//   - answers: where to run, store and route what is restored. A plan is what follows
//     from them on one platform.
//
// # Backup
//
//	lock app ▸ capture ▸ estimate (space, downtime, store, recipients; may refuse)
//	▸ journal ▸ guard ▸ hooks ▸ stop in reverse order ▸ read volumes into transit
//	▸ start in order, gated on health ▸ hooks ▸ archive from transit to store
//	▸ commit (fsync, rename) ▸ transit cleared ▸ journal closed
//
// # Restore
//
//	read manifest and settings ▸ plan with the answers (may refuse) ▸ journal
//	▸ load images ▸ fill new volumes ▸ verify against the manifest ▸ stop the old set
//	▸ swap ▸ create and start in order, gated on health ▸ probe the route
//	▸ keep what undo needs ▸ journal closed; any failure rolls back
//
// # Not guaranteed
//
// age does not prove who made an archive: an archive is untrusted input whoever
// encrypted it. A volume that something else writes to while its app is stopped is
// as consistent as that writer leaves it; the archive says so where it was seen.
package backup
