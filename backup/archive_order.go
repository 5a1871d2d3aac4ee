package backup

import (
	"fmt"
	"maps"
	"slices"
)

// order knows which member may come next behind the head, and what its hash must be.
type order struct {
	m       *Manifest       // nil before it is known: then only unknown members come
	images  map[string]bool // paths that came
	unknown map[string]bool
	volume  string // whose segments, and then index, come or came last
	next    int    // segment
	started map[string]bool
	indexed map[string]bool
}

func newOrder(m *Manifest) *order {
	return &order{
		m: m, images: make(map[string]bool), unknown: make(map[string]bool),
		started: make(map[string]bool), indexed: make(map[string]bool),
	}
}

// admit takes in a member, or says why it is not in its place.
func (o *order) admit(m *Member) (sha256 string, err error) {
	if m.Kind != MemberSegment && o.open() {
		return "", fmt.Errorf("there is %s where segment %d of volume %q should be", m.Name, o.next, o.volume)
	}
	switch m.Kind {
	case MemberImage:
		return o.image(m)
	case MemberSegment:
		return o.segment(m)
	case MemberIndex:
		t := o.m.Trees[m.Volume]
		switch {
		case t == nil || m.Volume != o.volume || o.indexed[m.Volume]:
			return "", fmt.Errorf("%s is not in its place", m.Name)
		case m.Size != t.Index.Size:
			return "", fmt.Errorf("%s has %d bytes, not %d", m.Name, m.Size, t.Index.Size)
		}
		o.indexed[m.Volume] = true
		return t.Index.SHA256, nil
	case MemberUnknown:
		if len(o.unknown) >= maxUnknown || o.unknown[m.Name] {
			return "", fmt.Errorf("%s is there twice, or one of too many", m.Name)
		}
		o.unknown[m.Name] = true
		return "", nil
	}
	return "", fmt.Errorf("%s is not in its place", m.Name)
}

// open reports whether segments of a volume are still to come.
func (o *order) open() bool {
	return o.volume != "" && o.next < len(o.m.Trees[o.volume].Segments)
}

func (o *order) image(m *Member) (string, error) {
	switch {
	case !o.m.ImagesInside:
		return "", fmt.Errorf("%s is there, and the manifest knows of no images", m.Name)
	case len(o.started) > 0:
		return "", fmt.Errorf("%s comes behind a volume", m.Name)
	case o.images[m.Path]:
		return "", fmt.Errorf("%s is there twice", m.Name)
	case len(o.images) >= maxImages:
		return "", fmt.Errorf("there are more than %d files of images", maxImages)
	}
	o.images[m.Path] = true
	if blob := blobRE.FindStringSubmatch(m.Path); blob != nil {
		return blob[1], nil
	}
	if m.Size > maxHead {
		return "", fmt.Errorf("%s has %d bytes, more than the %d that it may have", m.Name, m.Size, maxHead)
	}
	return "", nil
}

func (o *order) segment(m *Member) (string, error) {
	t := o.m.Trees[m.Volume]
	if t == nil {
		return "", fmt.Errorf("%s is of a volume that the manifest does not know", m.Name)
	}
	if !o.open() && m.Segment == 0 && !o.started[m.Volume] {
		if o.volume != "" && !o.indexed[o.volume] {
			return "", fmt.Errorf("there is %s where the index of volume %q should be", m.Name, o.volume)
		}
		o.volume, o.next = m.Volume, 0
		o.started[m.Volume] = true
	}
	if m.Volume != o.volume || m.Segment != o.next || !o.open() {
		return "", fmt.Errorf("%s is not in its place", m.Name)
	}
	want := t.Segments[m.Segment]
	if m.Size != want.Size {
		return "", fmt.Errorf("%s has %d bytes, not %d", m.Name, m.Size, want.Size)
	}
	o.next++
	return want.SHA256, nil
}

// complete says what is missing where the data ends.
func (o *order) complete() error {
	for _, id := range slices.Sorted(maps.Keys(o.m.Trees)) {
		switch {
		case o.volume == id && o.open():
			return fmt.Errorf("%w: segment %d of volume %q is missing", ErrCorrupt, o.next, id)
		case !o.started[id]:
			return fmt.Errorf("%w: volume %q is missing", ErrCorrupt, id)
		case !o.indexed[id]:
			return fmt.Errorf("%w: the index of volume %q is missing", ErrCorrupt, id)
		}
	}
	if o.m.ImagesInside && len(o.images) == 0 {
		return fmt.Errorf("%w: the images are missing", ErrCorrupt)
	}
	return nil
}
