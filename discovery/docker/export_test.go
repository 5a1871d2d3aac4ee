package docker

import (
	"io/fs"
	"time"
)

// Quick makes a source impatient, for tests.
func (s *Source) Quick() *Source {
	s.timing.minBackoff, s.timing.maxBackoff = 5*time.Millisecond, 50*time.Millisecond
	return s
}

// Timing changes single times; zero leaves what is there.
func (s *Source) Timing(call, slow, idle, resync time.Duration) *Source {
	set := func(dst *time.Duration, d time.Duration) {
		if d > 0 {
			*dst = d
		}
	}
	set(&s.timing.call, call)
	set(&s.timing.slow, slow)
	set(&s.timing.idle, idle)
	set(&s.timing.resync, resync)
	if idle > 0 {
		s.timing.lag = idle
	}
	return s
}

// Machine says what machine the source runs on.
func (s *Source) Machine(root fs.FS, hostname string) *Source {
	s.root, s.hostname = root, hostname
	return s
}

// ListTimeout limits how long a list may take.
func (s *Source) ListTimeout(d time.Duration) *Source {
	s.timing.list = d
	return s
}
