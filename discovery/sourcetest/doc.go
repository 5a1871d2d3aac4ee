// Package sourcetest is what every discovery.Source is tested with.
//
//   - Engine is a scripted Docker Engine: it speaks the HTTP API, holds any number
//     of containers, does what it is told, counts what it is asked, and fails,
//     stalls, forgets, repeats and disappears on command.
//   - Recorder is a discovery.Updater that remembers, and waits for conditions.
//   - Run is the suite that any Source must pass, through a small Harness.
//   - Labels is a small dialect, for tests that are not about dialects.
//
// A container of an Engine can have any address, so that a listener on loopback
// can stand behind it:
//
//	e := sourcetest.NewEngine(t, sourcetest.EngineOptions{})
//	id := e.Run(sourcetest.Container{
//		Name:     "web",
//		Labels:   map[string]string{"dentropy.host": "web.example.com"},
//		Exposed:  []int{8080},
//		Networks: []sourcetest.Attachment{{Network: "bridge", IP: "127.0.0.5"}},
//	})
//	// … point a source at e.Endpoint() …
//	e.Die(id, 1)
//
// An Engine does not pretend to run anything: a container's state is what the
// last verb made it. It has the API of Docker from 1.41 to 1.54 as far as watching
// needs it, and answers 404 to everything else.
package sourcetest
