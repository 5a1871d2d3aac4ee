package backup

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// refOpen begins a reference to a secret: {dentropy-secret:3}. Where the text itself
	// has these characters, they become {dentropy-secret:} (no number).
	refOpen  = "{dentropy-secret:"
	refClose = "}"
	// minRepeat is the length from which a secret is hidden wherever else it stands in the
	// settings. Shorter ones are words that mean something else there.
	minRepeat = 6
	// maxUnredacted bounds what references expand to, for settings that somebody else made:
	// many references to one long secret.
	maxUnredacted = 4 * maxHead
)

// Redact parts the secrets of an app from the rest: environment, credentials in options
// and labels, passwords on command lines and in URLs. In public a reference stands for
// each; Unredact puts them back. app is not changed. What public tells of names, images,
// mounts and state is as it was.
//
// It hides more than is secret where it cannot know: all of a container's environment, and
// all options of volumes but those that say where the data is. It cannot know what looks
// like nothing, such as a password that is a command's only argument.
func Redact(app *App) (public *App, secrets map[string]string) {
	r := newRedactor(app)
	public = mapApp(app, r.visitor())
	// A secret may stand in places where nothing says that it is one. Now all are known.
	if repeats := r.repeats(); len(repeats) > 0 {
		again := &repeater{r: r, values: repeats}
		public = mapApp(public, visitor{
			text: func(_ place, s string) string { return again.hide(s) },
			raw:  again.raw,
		})
	}
	return public, r.secrets
}

// Unredact puts the secrets back. A reference to a secret that is not there is an error.
func Unredact(public *App, secrets map[string]string) (*App, error) {
	u := &unredactor{secrets: secrets, left: maxUnredacted}
	app := mapApp(public, visitor{
		text: func(_ place, s string) string { return u.expand(s) },
		raw:  u.raw,
	})
	if u.err != nil {
		return nil, fmt.Errorf("put the secrets back: %w", u.err)
	}
	return app, nil
}

// place says where a text is.
type place struct {
	kind placeKind
	key  string // of a map
}

type placeKind int

const (
	inSettings placeKind = iota
	inLabels
	inVolumeOptions
	inText // warnings
)

// visitor changes the parts of an app that may hold secrets. Redact and Unredact visit the
// same ones in the same order.
type visitor struct {
	text func(place, string) string
	raw  func(json.RawMessage) json.RawMessage
	// args is for command lines; where it is nil, text takes each argument.
	args func([]string) []string
}

// mapApp is a copy of app with v's changes. What it does not visit it shares with app.
func mapApp(app *App, v visitor) *App {
	out := *app
	out.Containers = slices.Clone(app.Containers)
	for i := range out.Containers {
		c := &out.Containers[i]
		c.Settings = v.raw(c.Settings)
		c.Routes = v.mapOf(inLabels, c.Routes)
		c.Quiesce.Pre = v.hooks(c.Quiesce.Pre)
		c.Quiesce.Post = v.hooks(c.Quiesce.Post)
	}
	out.Volumes = slices.Clone(app.Volumes)
	for i := range out.Volumes {
		vol := &out.Volumes[i]
		vol.Options = v.mapOf(inVolumeOptions, vol.Options)
		vol.Labels = v.mapOf(inLabels, vol.Labels)
	}
	out.Networks = slices.Clone(app.Networks)
	for i := range out.Networks {
		n := &out.Networks[i]
		n.Labels = v.mapOf(inLabels, n.Labels)
		n.Settings = v.raw(n.Settings)
	}
	out.Warnings = slices.Clone(app.Warnings)
	for i := range out.Warnings {
		out.Warnings[i] = v.text(place{kind: inText}, out.Warnings[i])
	}
	return &out
}

func (v visitor) mapOf(kind placeKind, m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out[key] = v.text(place{kind: kind, key: key}, m[key])
	}
	return out
}

func (v visitor) hooks(hooks []Hook) []Hook {
	out := slices.Clone(hooks)
	for i := range out {
		if v.args != nil {
			out[i].Command = v.args(out[i].Command)
			continue
		}
		out[i].Command = slices.Clone(out[i].Command)
		for j, a := range out[i].Command {
			out[i].Command[j] = v.text(place{kind: inSettings}, a)
		}
	}
	return out
}

func newRedactor(app *App) *redactor {
	return &redactor{
		refs:    make(map[string]string),
		secrets: make(map[string]string),
		strong:  make(map[string]bool),
		names:   plainWords(app),
	}
}

// redactor finds secrets and gives each a number.
type redactor struct {
	refs    map[string]string // by secret
	secrets map[string]string // by number
	strong  map[string]bool   // those that surely are secrets
	names   []string          // texts of the app that stay as they are
}

// ref is the reference that stands for a secret.
func (r *redactor) ref(secret string) string {
	if ref, ok := r.refs[secret]; ok {
		return ref
	}
	n := strconv.Itoa(len(r.secrets) + 1)
	r.secrets[n] = secret
	ref := refOpen + n + refClose
	r.refs[secret] = ref
	return ref
}

// sure is ref for what surely is a secret.
func (r *redactor) sure(secret string) string {
	r.strong[secret] = true
	return r.ref(secret)
}

// repeats are the secrets to look for everywhere, longest first. One that is part of a name
// of the app is none of them: the reference would stand beside the name and give it away.
func (r *redactor) repeats() []string {
	var out []string
	for s := range r.strong {
		if len(s) >= minRepeat && !slices.ContainsFunc(r.names, func(n string) bool { return strings.Contains(n, s) }) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return out
}

// plainWords are the texts of an app that Redact leaves as they are.
func plainWords(app *App) []string {
	words := []string{app.Name, app.Platform, app.Source.HostID}
	for i := range app.Containers {
		c := &app.Containers[i]
		words = append(words, c.ID, c.Name, c.Service, c.Image, c.ImageID)
		for _, m := range c.Mounts {
			words = append(words, m.Target, m.Subpath)
		}
	}
	for i := range app.Volumes {
		v := &app.Volumes[i]
		words = append(words, v.ID, v.Name, v.Driver)
	}
	for _, n := range app.Networks {
		words = append(words, n.Name, n.Driver)
	}
	for _, img := range app.Images {
		words = append(words, img.ID)
		words = append(words, img.Refs...)
	}
	return words
}

// repeater hides known secrets in texts that hold references already.
type repeater struct {
	r      *redactor
	values []string
}

func (a *repeater) raw(raw json.RawMessage) json.RawMessage {
	return mapJSON(raw, func(t jsonText) string { return a.hide(t.Text) })
}

// hide replaces known secrets outside of references.
func (a *repeater) hide(s string) string {
	var b strings.Builder
	for s != "" {
		plain, ref, rest := nextRef(s)
		b.WriteString(a.hidePlain(plain))
		b.WriteString(ref)
		s = rest
	}
	return b.String()
}

func (a *repeater) hidePlain(s string) string {
	for _, v := range a.values {
		if before, after, ok := strings.Cut(s, v); ok {
			return a.hidePlain(before) + a.r.ref(v) + a.hidePlain(after)
		}
	}
	return s
}

// nextRef parts s into the text before its first reference, the reference, and the rest.
func nextRef(s string) (plain, ref, rest string) {
	i := strings.Index(s, refOpen)
	if i < 0 {
		return s, "", ""
	}
	j := strings.Index(s[i:], refClose)
	if j < 0 {
		return s, "", ""
	}
	end := i + j + len(refClose)
	return s[:i], s[i:end], s[end:]
}

// escape makes text of s that holds no reference.
func escape(s string) string { return strings.ReplaceAll(s, refOpen, refOpen+refClose) }

// unredactor puts secrets back.
type unredactor struct {
	secrets map[string]string
	left    int
	err     error
}

func (u *unredactor) raw(raw json.RawMessage) json.RawMessage {
	return mapJSON(raw, func(t jsonText) string { return u.expand(t.Text) })
}

// expand puts secrets in. It first looks how long that gets.
func (u *unredactor) expand(s string) string {
	if !strings.Contains(s, refOpen) {
		return s
	}
	for rest := s; rest != "" && u.err == nil; {
		var plain, ref string
		plain, ref, rest = nextRef(rest)
		if ref == "" && strings.Contains(plain, refOpen) {
			u.err = fmt.Errorf("%w: the settings hold half a reference to a secret", ErrCorrupt)
			break
		}
		if u.left -= len(plain) + len(u.value(ref)); u.left < 0 {
			u.err = fmt.Errorf("%w: the settings refer to more secrets than can be", ErrCorrupt)
		}
	}
	var b strings.Builder
	for rest := s; rest != "" && u.err == nil; {
		var plain, ref string
		plain, ref, rest = nextRef(rest)
		b.WriteString(plain)
		b.WriteString(u.value(ref))
	}
	return b.String()
}

// value is what a reference stands for.
func (u *unredactor) value(ref string) string {
	if ref == "" {
		return ""
	}
	number := strings.TrimSuffix(ref[len(refOpen):], refClose)
	if number == "" {
		return refOpen
	}
	v, ok := u.secrets[number]
	if !ok {
		u.err = fmt.Errorf("%w: the settings refer to a secret that is not there", ErrCorrupt)
	}
	return v
}
