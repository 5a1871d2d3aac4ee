// Package docker captures, freezes and restores apps on a Docker Engine, the local one
// or another that is reached over TLS or ssh. New makes a backup.Platform of it.
//
// # How it works
//
// An app is a compose project, the containers with the same label dentropy.app, or one
// container. Capture reads all of it by the engine's API and keeps settings as the
// engine gave them, so that fields of a newer engine are not lost.
//
// Data is read and written by helper containers. Their image is made of this program's
// own static binary, and exists before anything is stopped: no registry is needed. A
// helper has no network, a read-only root, no more capabilities than its task needs, and
// sees nothing but the volumes of the task and the transit volume, never the engine's
// socket.
//
//	freeze:  pre hooks ▸ plan into the journal ▸ guard ▸ stop in reverse order, each in
//	         the journal ▸ helper reads volumes into transit ▸ look whether anything was
//	         started by others ▸ start in order, gated on health ▸ post hooks
//
// The guard is a container that has the socket and reads from this program. Where that
// ends without a word (a kill, a reboot), it starts the app again by the plan that it was
// given. Recover does the same from the journal. Both leave alone what somebody else has
// touched since. A restore that replaces an app has a guard until it exchanges anything;
// see apply_guard.go for why not for longer.
//
// # Labels
//
//	dentropy.app                  the app that a container belongs to
//	dentropy.backup.mode          stop, pause, hot
//	dentropy.backup.pre, .post    hooks: text for /bin/sh -c, or a JSON array of words
//	dentropy.backup.user          the user that hooks run as
//	docker-volume-backup.stop-during-backup, .stop-during-backup-no-restart,
//	docker-volume-backup.archive-pre, .archive-post (and process-, copy-; .user)
//
// On what it makes itself: dentropy.backup.job is the operation, dentropy.backup.role is
// helper, guard or transit.
//
// # Not guaranteed
//
// What a container keeps in memory or in a tmpfs is not captured. A registry that does
// not answer counts as one that does not have the image.
package docker
