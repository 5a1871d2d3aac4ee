package backup

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// readme is the README of an archive: how to get everything out of this very archive by
// hand. The commands in it are run by a test.
func readme(m *Manifest) []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("This is the app %q, packed by %s on %s.", m.App.Name, oneLine(m.Tool), m.Created.Format(time.RFC3339))
	p("The archive is %s, of format %d.", m.ID, FormatVersion)
	p("")
	p("dentropy restore FILE makes a running app of it again.")
	p("")
	p("All of it can be taken out without that program, with GNU tar, zstd and")
	p("sha256sum, as below. FILE is the name of the archive:")
	p("")
	p("  FILE=%s", ArchiveName(m.App.Name, m.Created, m.ID, false))
	p("")
	switch m.Encryption {
	case EncryptAll:
		p("You read this, so the archive is decrypted. From the encrypted one it came so:")
		p("")
		p("  age -d -i key.txt FILE.age > \"$FILE\"")
		p("")
		p("key.txt holds the private key: the line of the recovery kit that begins with")
		p("AGE-SECRET-KEY-1. With a passphrase, leave out -i key.txt.")
	case EncryptSecrets:
		p("Only the secrets in it are encrypted, with age. key.txt below holds the private")
		p("key: the line of the recovery kit that begins with AGE-SECRET-KEY-1. With a")
		p("passphrase, leave out -i key.txt.")
	default:
		p("Nothing in it is encrypted, passwords included: keep it where nobody sees it.")
	}
	p("")
	p("IS IT WHOLE? It is if its last member is %s, and if all of", nameEnd)
	p("these are OK:")
	p("")
	p("  mkdir out && tar -xf \"$FILE\" -C out && (cd out && sha256sum -c %s)", nameSums)
	p("")
	p("SETTINGS of containers, volumes and networks, as the engine had them, in JSON:")
	p("")
	p("  tar -xOf \"$FILE\" %s", nameSettings)
	p("")
	p("Where they have {dentropy-secret:N}, the secret is number N of the secrets:")
	p("")
	if m.Encryption == EncryptNone {
		p("  tar -xOf \"$FILE\" %s", nameSecretsJSON)
	} else {
		p("  tar -xOf \"$FILE\" %s | age -d -i key.txt", nameSecretsAge)
	}
	p("")
	if m.ImagesInside {
		p("IMAGES, as an OCI layout that docker load takes:")
		p("")
		p("  mkdir images && tar -xf \"$FILE\" -C images --strip-components=2 %s", strings.TrimSuffix(prefixImages, "/"))
		p("  tar -cC images . | docker load")
		p("")
	}
	readmeVolumes(p, m)
	return []byte(b.String())
}

// readmeVolumes says how to get at the data.
func readmeVolumes(p func(string, ...any), m *Manifest) {
	if len(m.Trees) == 0 {
		p("There is no data of volumes in it.")
		return
	}
	p("DATA. DIR is an empty folder. Run these as root, or owners are lost.")
	for _, id := range slices.Sorted(maps.Keys(m.Trees)) {
		t := m.Trees[id]
		p("")
		p("%s (%d files, %d bytes):", volumeLabel(m.App, id), t.Files, t.Bytes)
		p("")
		p("  tar -xOf \"$FILE\" --wildcards '%s' | zstd -dc |", segmentPattern(m, id))
		p("    tar --acls --xattrs --xattrs-include='*' --numeric-owner -xpf - -C DIR")
	}
	p("")
	p("A list of the files of each, one JSON object on each line:")
	for _, id := range slices.Sorted(maps.Keys(m.Trees)) {
		p("")
		p("  tar -xOf \"$FILE\" %s | zstd -dc", filesName(id))
	}
}

// volumeLabel names a volume as people know it.
func volumeLabel(app *App, id string) string {
	for i := range app.Volumes {
		if v := &app.Volumes[i]; v.ID == id {
			return fmt.Sprintf("%s %q", v.Kind, v.Name)
		}
	}
	return fmt.Sprintf("volume %q", id)
}

// segmentPattern matches the segments of one volume and no others.
func segmentPattern(m *Manifest, id string) string {
	prefix := prefixVolumes + id + segmentInfix
	for other := range m.Trees {
		if strings.HasPrefix(other, id+segmentInfix) {
			// As many digits as the number has; more than 99,999 segments need more.
			return prefix + strings.Repeat("[0-9]", len(segmentName(id, max(0, len(m.Trees[id].Segments)-1)))-len(prefix))
		}
	}
	return prefix + "*"
}

// oneLine keeps a text from adding lines of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
