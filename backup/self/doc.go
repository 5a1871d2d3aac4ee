// Package self makes this program's own state an app that can be backed up and
// restored: certificates and their keys, who owns which host, the internal CA, and what
// is known of backups, this installation's key among it.
//
//	p := self.New(self.Options{Data: "/var/lib/dentropy", Dir: "/var/lib/dentropy/backup", Lock: "/var/lib/dentropy/up.lock"})
//
// # Backup
//
//	the data folder is read while the program runs: each file is replaced as a whole
//	when it changes, so that none is torn ▸ archive
//
// # Restore
//
//	take the lock of `dentropy up`, or refuse (also where a state is there already, unless
//	it may be replaced) ▸ fill a new folder beside the data, in the
//	data folder, since only there it is on the same disk ▸ verify ▸ journal
//	▸ each part of the old aside, the new in its place ▸ undo record
//
// Parts are the names in the data folder, not the folder itself: that is often where a
// volume is mounted and cannot be renamed. Until the record is in the journal, a crash
// takes everything back.
//
// # Not guaranteed
//
// The archive holds the private key that opens the archives made here, if it is kept
// here. It is encrypted to that same key: alone it opens nothing. Keep the recovery kit
// elsewhere. Archives, journals, locks and the records of what can be undone are not part
// of it: they are about the engines of one machine.
package self
