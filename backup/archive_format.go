package backup

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The names of members, in the order in which they come. docs/archive-format.md is the
// format's description; what is here must not part from it.
const (
	nameFormat      = "dentropy/00-FORMAT"
	nameReadme      = "dentropy/00-README.txt"
	nameManifest    = "dentropy/10-manifest.json"
	nameSettings    = "dentropy/20-settings.json"
	nameSecretsAge  = "dentropy/25-secrets.age"  //nolint:gosec // a file name
	nameSecretsJSON = "dentropy/25-secrets.json" //nolint:gosec // a file name
	prefixImages    = "dentropy/30-images/"
	prefixVolumes   = "dentropy/50-volumes/"
	prefixFiles     = "dentropy/90-files/"
	nameIndex       = "dentropy/91-index.json"
	nameSums        = "dentropy/92-SHA256SUMS"
	nameEnd         = "dentropy/99-END"

	segmentInfix = ".tar.zst."
	filesSuffix  = ".ndjson.zst"

	// formatMagic begins the first member's content, which begins at offset 512.
	formatMagic = "dentropy-app-archive "
	// ageMagic begins what age has encrypted; ageArmor where it is text.
	ageMagic = "age-encryption.org/v1\n"
	ageArmor = "-----BEGIN AGE ENCRYPTED FILE-----"
)

// Values of WriterOptions.Encryption and Manifest.Encryption.
const (
	EncryptAll     = "all"
	EncryptSecrets = "secrets"
	EncryptNone    = "none"
)

// Values of Manifest.Status.
const (
	StatusComplete = "complete"
	StatusWarnings = "warnings"
)

// What a reader takes at most: an archive is untrusted input, and each of these is held in
// memory or costs time before anything is known to be good.
const (
	maxFormat   = 4 << 10
	maxReadme   = 8 << 20
	maxHead     = 64 << 20 // manifest, settings, secrets each
	maxIndex    = 256 << 20
	maxSums     = 256 << 20
	maxMembers  = 1 << 20 // 64 TB in segments of 64 MiB
	maxFrames   = 8 << 20 // 32 TB in frames of 4 MiB
	maxImages   = 1 << 16 // files of an OCI layout
	maxUnknown  = 1 << 12
	maxVolumes  = 10_000
	maxSegment  = 4 << 30  // of one segment, compressed or not
	maxFrame    = 64 << 20 // likewise of one frame: it is decoded as a whole
	maxVolumeID = 200
	maxName     = 512
	maxLine     = 1 << 20 // of the index of members or files
)

const (
	blockSize = 512
	endSize   = 512
	// tailSize is what stands behind the content of the checksums: header and content of
	// the end marker and two zero blocks.
	tailSize = blockSize + endSize + 2*blockSize
)

var (
	volumeIDRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	memberRE   = regexp.MustCompile(`^dentropy/([0-9]{2})-[A-Za-z0-9][A-Za-z0-9._/-]*$`)
	blobRE     = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)
	sha256RE   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	archiveID  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// NewArchiveID makes the id of an archive: a UUIDv7 (RFC 9562), which sorts by time.
func NewArchiveID(t time.Time) string {
	var u [16]byte
	rand.Read(u[6:]) // never fails
	binary.BigEndian.PutUint64(u[:8], uint64(t.UnixMilli())<<16|uint64(binary.BigEndian.Uint16(u[6:8])))
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// checkVolumeID says what is wrong with the id of a volume.
func checkVolumeID(id string) error {
	if len(id) > maxVolumeID || !volumeIDRE.MatchString(id) {
		return fmt.Errorf("the volume id %q is not made of a-z, 0-9, dot, dash and underscore", id)
	}
	return nil
}

// segmentName is the name of a volume's segment.
func segmentName(volume string, n int) string {
	return fmt.Sprintf("%s%s%s%05d", prefixVolumes, volume, segmentInfix, n)
}

// filesName is the name of a volume's index of files.
func filesName(volume string) string { return prefixFiles + volume + filesSuffix }

// parseMember says what a member is by its name. Names that this version could have
// written but did not are errors; those of groups that it does not know are MemberUnknown.
func parseMember(name string) (Member, error) {
	m := Member{Name: name}
	bad := func() (Member, error) { return m, fmt.Errorf("the member name %q is not allowed", name) }
	match := memberRE.FindStringSubmatch(name)
	if match == nil || len(name) > maxName || unclean(name) {
		return bad()
	}
	switch name {
	case nameFormat, nameReadme, nameManifest, nameSettings, nameSecretsAge, nameSecretsJSON:
		m.Kind = MemberHead
		return m, nil
	case nameIndex, nameSums, nameEnd:
		m.Kind = MemberTail
		return m, nil
	}
	if path, ok := strings.CutPrefix(name, prefixImages); ok {
		m.Kind, m.Path = MemberImage, path
		if !imagePath(path) {
			return bad()
		}
		return m, nil
	}
	if rest, ok := strings.CutPrefix(name, prefixVolumes); ok {
		m.Kind = MemberSegment
		i := strings.LastIndex(rest, segmentInfix)
		if i < 0 {
			return bad()
		}
		n, err := strconv.ParseUint(rest[i+len(segmentInfix):], 10, 31)
		if err != nil {
			return bad()
		}
		m.Volume, m.Segment = rest[:i], int(n)
		// One spelling for each: no signs, no further zeros.
		if checkVolumeID(m.Volume) != nil || segmentName(m.Volume, m.Segment) != name {
			return bad()
		}
		return m, nil
	}
	if rest, ok := strings.CutPrefix(name, prefixFiles); ok {
		m.Kind = MemberIndex
		if m.Volume, ok = strings.CutSuffix(rest, filesSuffix); !ok || checkVolumeID(m.Volume) != nil {
			return bad()
		}
		return m, nil
	}
	switch match[1] {
	case "00", "10", "20", "25", "30", "50", "90", "91", "92", "99":
		return bad()
	}
	m.Kind = MemberUnknown
	return m, nil
}

// unclean reports names that are not their own shortest spelling, or lead upwards.
func unclean(name string) bool {
	for e := range strings.SplitSeq(name, "/") {
		if e == "" || e == "." || e == ".." {
			return true
		}
	}
	return false
}

// imagePath reports whether a path may be in an OCI layout that docker load takes as well.
func imagePath(path string) bool {
	switch path {
	case "oci-layout", "index.json", "manifest.json", "repositories":
		return true
	}
	return blobRE.MatchString(path)
}

// formatText is the content of the first member. The manifest's hash is there, so that a
// reader notices a damaged manifest before it acts on it.
func formatText(manifestSHA256 string) string {
	return formatMagic + strconv.Itoa(FormatVersion) + "\nmanifest " + manifestSHA256 + "\n"
}

// parseFormat reads the first member's content.
func parseFormat(text []byte) (manifestSHA256 string, err error) {
	rest, ok := bytes.CutPrefix(text, []byte(formatMagic))
	if !ok {
		return "", fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, formatMagic)
	}
	lines := strings.Split(string(rest), "\n")
	version, err := strconv.ParseUint(lines[0], 10, 31)
	if err != nil || version == 0 || len(lines) < 2 {
		return "", fmt.Errorf("%w: its format has no version", ErrCorrupt)
	}
	if version > FormatVersion {
		return "", fmt.Errorf("the archive was written by a newer version of this program (format %d, this one reads up to %d): update it to read this archive", version, FormatVersion)
	}
	sum, ok := strings.CutPrefix(lines[1], "manifest ")
	if !ok || !sha256RE.MatchString(sum) {
		return "", fmt.Errorf("%w: its format names no manifest", ErrCorrupt)
	}
	return sum, nil
}

// endMarker is the last member: what makes an archive complete.
type endMarker struct {
	ID          string
	IndexOffset int64 // of the index's content
	IndexSize   int64
	SumsSHA256  string
	Status      string
	Total       int64 // of the outer tar, to its last byte
}

// text is the marker as it is written: endSize bytes of ASCII.
func (e endMarker) text() []byte {
	s := fmt.Sprintf("%s%d end\nid %s\nindex %d %d\nsums %s\nstatus %s\ntotal %d\n",
		formatMagic, FormatVersion, e.ID, e.IndexOffset, e.IndexSize, e.SumsSHA256, e.Status, e.Total)
	return []byte(s + strings.Repeat(" ", endSize-1-len(s)) + "\n")
}

// parseEnd reads an end marker. Lines of later minor versions are skipped.
func parseEnd(text []byte) (endMarker, error) {
	var e endMarker
	bad := func(what string) (endMarker, error) {
		return e, fmt.Errorf("%w: the end marker %s", ErrCorrupt, what)
	}
	if len(text) != endSize {
		return bad("has the wrong size")
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != formatMagic+strconv.Itoa(FormatVersion)+" end" || len(lines) < 3 || lines[len(lines)-1] != "" {
		return bad("does not say what it is")
	}
	if strings.Trim(lines[len(lines)-2], " ") != "" {
		return bad("is not filled up with spaces")
	}
	var indexOK, totalOK bool
	for _, line := range lines[1 : len(lines)-2] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "id":
			e.ID = value
		case "index":
			a, b, _ := strings.Cut(value, " ")
			var ok bool
			e.IndexOffset, indexOK = parseCount(a)
			e.IndexSize, ok = parseCount(b)
			indexOK = indexOK && ok
		case "sums":
			e.SumsSHA256 = value
		case "status":
			e.Status = value
		case "total":
			e.Total, totalOK = parseCount(value)
		}
	}
	switch {
	case !archiveID.MatchString(e.ID):
		return bad("has no id")
	case !indexOK || !totalOK:
		return bad("does not say where the index is")
	case !sha256RE.MatchString(e.SumsSHA256):
		return bad("has no hash")
	case e.Status != StatusComplete && e.Status != StatusWarnings:
		return bad("has no status")
	}
	return e, nil
}

// parseCount reads a number that is spelt in the one way in which it is written.
func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}
