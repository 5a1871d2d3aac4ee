package backup

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// archiveTime is the time in an archive's name, in UTC: it sorts, and a file name may
	// hold it everywhere.
	archiveTime = "20060102T150405Z"
	// maxNameApp bounds the app's part of the name, in bytes: the whole stays well below the
	// 255 bytes of a file name, whatever a store adds while it writes.
	maxNameApp = 100
	extPlain   = ".dentropy.tar"
	extAge     = ".dentropy.tar.age"
)

// ArchiveInfo is what the name of an archive tells.
type ArchiveInfo struct {
	App       string    // as it is in the name: made safe for a file name
	Time      time.Time // UTC, whole seconds
	ID        string    // 8 characters of the archive's id
	Encrypted bool
}

// ArchiveName is the name of an archive: <app>-<time>-<id>.dentropy.tar, with .age behind
// it where all of it is encrypted. Of id its last 8 hex digits are taken: the first ones
// of a UUIDv7 are the time over again.
func ArchiveName(app string, t time.Time, id string, encrypted bool) string {
	ext := extPlain
	if encrypted {
		ext = extAge
	}
	return safeApp(app) + "-" + t.UTC().Format(archiveTime) + "-" + shortID(id) + ext
}

// shortID is the last 8 hex digits of an id.
func shortID(id string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(id) {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' {
			b.WriteRune(r)
		}
	}
	s := "00000000" + b.String()
	return s[len(s)-8:]
}

// safeApp makes a name that any file system takes and no shell or program misreads: no
// leading dot or dash, and nothing but letters and digits of ASCII, dot, dash and
// underscore.
func safeApp(app string) string {
	var b strings.Builder
	for _, r := range app {
		switch {
		case r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)), r == '.', r == '_', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	s := strings.TrimLeft(b.String(), ".-")
	if len(s) > maxNameApp {
		s = s[:maxNameApp]
	}
	s = strings.TrimRight(s, ".-")
	if s == "" {
		return "app"
	}
	return s
}

var archiveNameRE = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*)-([0-9]{8}T[0-9]{6}Z)-([0-9a-f]{8})\.dentropy\.tar(\.age)?$`)

// ParseArchiveName reads what ArchiveName made. An error says that it did not make this
// name.
func ParseArchiveName(name string) (ArchiveInfo, error) {
	m := archiveNameRE.FindStringSubmatch(name)
	if m == nil {
		return ArchiveInfo{}, fmt.Errorf("read the name %q: an archive is called <app>-<time>-<id>%s", name, extPlain)
	}
	t, err := time.Parse(archiveTime, m[2])
	if err != nil {
		return ArchiveInfo{}, fmt.Errorf("read the time in the name %q: %w", name, err)
	}
	info := ArchiveInfo{App: m[1], Time: t, ID: m[3], Encrypted: m[4] != ""}
	// Only names that are exactly as they would be made again: no names of unbounded
	// length, and no two spellings of one.
	if ArchiveName(info.App, info.Time, info.ID, info.Encrypted) != name {
		return ArchiveInfo{}, fmt.Errorf("read the name %q: not the name of an archive", name)
	}
	return info, nil
}
