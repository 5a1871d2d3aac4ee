package dentropycmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner names the program that holds a port, "" where it cannot be told: only
// root sees the sockets of other users.
func portOwner(kind string, port int) string {
	inodes := map[string]bool{}
	for _, family := range []string{"", "6"} {
		table, err := os.ReadFile("/proc/net/" + kind + family)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			// sl local_address rem_address st … inode
			f := strings.Fields(line)
			const state, inode = 3, 9
			if len(f) <= inode || kind == "tcp" && f[state] != "0A" { // 0A: listening
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if p, err := strconv.ParseUint(hex, 16, 16); err == nil && int(p) == port {
				inodes["socket:["+f[inode]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s, process %s", clean(strings.TrimSpace(string(comm))), pid)
	}
	return ""
}
