// Package backuptest has what tests of backup need in place of engines and disks: a
// Platform whose engine is a file, a Store in memory, and both with faults.
//
//	engine := backuptest.NewEngine(filepath.Join(t.TempDir(), "engine.json"))
//	engine.Add(backuptest.App{Name: "shop", Containers: …, Volumes: …})
//	p := backuptest.NewPlatform("docker", engine)
//	p.Step = func(step string) error { … } // errors, stalls, kills
//
// The engine outlives the process that uses it, as a real one does: a test may kill
// the process and look at the engine afterwards. It does not check that what is asked
// of it makes sense beyond that.
package backuptest
