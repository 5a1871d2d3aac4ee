package dockerengine

import (
	"bufio"
	"bytes"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// fullID is how engines name containers in paths.
var fullID = regexp.MustCompile(`[0-9a-f]{64}`)

// shortID is the host name that a container has by default.
var shortID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// OwnIDs returns what our own container's id may be, best guess first; none where
// nothing suggests that we run in a container. root is the file system of this
// machine.
//
// mountinfo is the surest sign: an engine mounts its own files over these three,
// and their source names the container. (The other lines name other containers,
// where a host's mounts are seen.) The control group is the sign of version 1, the
// host name the last resort: it can be anything.
func OwnIDs(root fs.FS, hostname string) []string {
	var ids []string
	add := func(id string) {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if text, err := fs.ReadFile(root, "proc/self/mountinfo"); err == nil {
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) > 4 && slices.Contains([]string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, f[4]) {
				add(fullID.FindString(f[3]))
			}
		}
	}
	if text, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(text)) {
			if i := strings.LastIndexByte(line, '/'); i >= 0 && strings.Count(line, ":") >= 2 {
				add(fullID.FindString(line[i:]))
			}
		}
	}
	if shortID.MatchString(hostname) {
		add(hostname)
	}
	return ids
}
