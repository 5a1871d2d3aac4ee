package docker

import (
	"errors"
	"strings"
	"testing"

	"github.com/dentropy/dentropycloud/backup"
)

// The review shows files that run as others, and asks about those that users of the host
// would get at.
func TestRisksOfSpecialFiles(t *testing.T) {
	su := &backup.Special{SetID: 3, Examples: []string{"bin/su", "bin/mount"}}
	for _, test := range []struct {
		name    string
		volume  string
		special *backup.Special
		edit    func(*backup.App)
		answers backup.Answers
		want    string // the text
		open    string
	}{
		{name: "an archive that does not say", volume: "data"},
		{name: "none", volume: "conf", special: &backup.Special{}},
		{name: "in a volume", volume: "data", special: su, want: "volume data holds 3 files that run with the rights of their owner (setuid, setgid or capabilities), such as bin/su and bin/mount"},
		{name: "on the host", volume: "conf", special: su, want: "volume conf holds 3 files", open: "risk setuid"},
		{name: "on the host, accepted", volume: "conf", special: su, answers: backup.Answers{Allow: []string{"setuid"}}, want: "volume conf holds 3 files"},
		{name: "on the host, now in a volume", volume: "conf", special: su, answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"conf": {Name: "confvol"}}}, want: "volume conf"},
		{name: "in a volume, now on the host", volume: "data", special: su, answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"data": {Path: "/srv/elsewhere"}}}, want: "volume data", open: "risk setuid"},
		{name: "in a volume that is a folder of the host", volume: "data", special: su, edit: func(a *backup.App) {
			a.Volumes[0].Options = map[string]string{"type": "none", "o": "bind", "device": "/srv/shop/x"}
		}, want: "volume data", open: "risk setuid"},
		{name: "without its data", volume: "conf", special: su, answers: backup.Answers{Volumes: map[string]backup.VolumeAnswer{"conf": {Empty: true}}}},
		{name: "one device", volume: "data", special: &backup.Special{Devices: 1}, want: "volume data holds 1 device"},
		{name: "devices on the host", volume: "project", special: &backup.Special{Devices: 2}, want: "volume project holds 2 devices", open: "risk device"},
		{
			name: "a hostile name", volume: "data", special: &backup.Special{SetID: 1, Examples: []string{"\x1b[2J\n\u202e" + strings.Repeat("ü", 500)}},
			want: "volume data holds 1 file that runs with the rights of its owner (setuid, setgid or capabilities), such as ·[2J ·" + strings.Repeat("ü", backup.MaxExample-6) + "…",
		},
	} {
		m, app := archived("")
		m.Trees[test.volume].Special = test.special
		if test.edit != nil {
			test.edit(app)
		}
		p, _, err := planRestore(m, app, test.answers, bare())
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := ""
		for _, r := range p.Risks {
			if r.Kind == riskSetID || r.Kind == riskDevice {
				got = r.Text
			}
		}
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: the review says %q, want %q", test.name, got, test.want)
		}
		if open := open(p); open != test.open {
			t.Errorf("%s: open is %q, want %q", test.name, open, test.open)
		}
	}
}

// What comes is held against what the review has shown.
func TestCameSpecial(t *testing.T) {
	for _, test := range []struct {
		name   string
		volume string
		said   *backup.Special
		came   written
		allow  []string
		want   string // in the error
		hint   string
	}{
		{name: "as it says", volume: "conf", said: &backup.Special{SetID: 1, Devices: 2}, came: written{SetID: 1, Devices: 2}},
		{name: "more than it says", volume: "data", said: &backup.Special{}, came: written{SetID: 1}, want: "the manifest says 0"},
		{name: "less than it says", volume: "data", said: &backup.Special{SetID: 5}, came: written{SetID: 1}, want: "the manifest says 5"},
		{name: "a device more", volume: "data", said: &backup.Special{}, came: written{Devices: 1}, allow: []string{"all"}, want: "the manifest says 0"},
		{name: "it does not say, in a volume", volume: "data", came: written{SetID: 1, Devices: 1}},
		{name: "it does not say, on the host", volume: "conf", came: written{SetID: 1}, want: "/srv/shop/conf of the host", hint: "--allow setuid accepts it"},
		{name: "it does not say, devices on the host", volume: "conf", came: written{Devices: 1}, want: "1 device", hint: "--allow device accepts it"},
		{name: "it does not say, and it is accepted", volume: "conf", came: written{SetID: 1}, allow: []string{"setuid"}},
	} {
		m, app := archived("")
		p, d, err := planRestore(m, app, backup.Answers{Allow: test.allow}, bare())
		if err != nil {
			t.Fatal(err)
		}
		r := &restore{d: d, m: m, app: app, plan: p, opts: backup.ApplyOptions{Report: func(backup.Progress) {}}}
		err = r.cameSpecial(d.volume(test.volume), test.said, &test.came)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || backup.HintOf(err) != test.hint {
			t.Errorf("%s: %v (%q), want %q (%q)", test.name, err, backup.HintOf(err), test.want, test.hint)
		}
		if test.said != nil && err != nil && !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", test.name, err, backup.ErrCorrupt)
		}
	}
}
