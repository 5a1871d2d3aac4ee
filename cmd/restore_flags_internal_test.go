package dentropycmd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/dentropy/dentropycloud/backup"
)

func TestAnswerFlags(t *testing.T) {
	base := backup.Answers{
		Name: "file", Allow: []string{"device"},
		Volumes: map[string]backup.VolumeAnswer{"db": {Name: "old"}, "files": {Empty: true}},
	}
	for _, tt := range []struct {
		name string
		args []string
		want backup.Answers
		err  string
	}{
		{name: "none", want: base},
		{
			name: "a flag beats the file",
			args: []string{"--as", "flag", "--volume", "db=path:/srv/db", "--allow", "privileged,device", "--engine", "nas"},
			want: backup.Answers{
				Name: "flag", Platform: "docker:nas", Allow: []string{"device", "privileged"},
				Volumes: map[string]backup.VolumeAnswer{"db": {Path: "/srv/db"}, "files": {Empty: true}},
			},
		},
		{name: "twice", args: []string{"--volume", "db=empty", "--volume", "db=existing"}, err: `--volume: "db" is given twice`},
		{name: "no name", args: []string{"--port", "=80"}, err: `--port "=80": give NAME=VALUE`},
		{name: "no value", args: []string{"--route", "web"}, err: `--route "web": give NAME=VALUE`},
		{name: "bad port", args: []string{"--port", "web:80=70000"}, err: "give a port, IP:PORT, auto or none"},
		{name: "bad address", args: []string{"--port", "web:80=localhost:80"}, err: `"localhost" is no IP address`},
		{name: "bad subnet", args: []string{"--network", "front=subnet:10.9.0.1/24"}, err: `"10.9.0.1/24" is no subnet`},
		{name: "URL as host", args: []string{"--route", "web=https://a.example.com"}, err: "is a URL: give the host name alone"},
		{name: "port in host", args: []string{"--route", "web=a.example.com:8443"}, err: "a port is given as port="},
		{name: "bad word", args: []string{"--on-conflict", "overwrite"}, err: "give refuse, replace, rename"},
		{name: "bad name", args: []string{"--rename", "a=b/c"}, err: "no name of a container"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f answerFlags
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			f.add(fs)
			if err := fs.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			got, err := f.answers(base)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("answers(%q) = %v, want an error with %q", tt.args, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answers(%q) differ (-want +got):\n%s", tt.args, diff)
			}
		})
	}
	if base.Volumes["db"].Name != "old" || len(base.Allow) != 1 {
		t.Error("the answers of the file were changed")
	}
}

func TestVolumeAnswer(t *testing.T) {
	for _, tt := range []struct {
		flag, name string
		want       backup.VolumeAnswer
	}{
		{"db=name:db2", "db", backup.VolumeAnswer{Name: "db2"}},
		{"/srv/a=b=path:/srv/c=d", "/srv/a=b", backup.VolumeAnswer{Path: "/srv/c=d"}},
		{"db=existing", "db", backup.VolumeAnswer{Existing: true}},
		{"db=existing:other", "db", backup.VolumeAnswer{Existing: true, Name: "other"}},
		{"db=existing:/srv/db", "db", backup.VolumeAnswer{Existing: true, Path: "/srv/db"}},
		{"db=nfs:nas:/export", "db", backup.VolumeAnswer{Driver: "local", Options: map[string]string{"type": "nfs", "o": "addr=nas,rw", "device": ":/export"}}},
		{"db=nfs:[fd00::9]:/export", "db", backup.VolumeAnswer{Driver: "local", Options: map[string]string{"type": "nfs", "o": "addr=fd00::9,rw", "device": ":/export"}}},
		{"db=driver:rclone,remote=x:y,ro", "db", backup.VolumeAnswer{Driver: "rclone", Options: map[string]string{"remote": "x:y,ro"}}},
		{"db=driver:local,type=nfs,o=addr=1.2.3.4,rw,nfsvers=4,device=:/x", "db", backup.VolumeAnswer{Driver: "local",
			Options: map[string]string{"type": "nfs", "o": "addr=1.2.3.4,rw,nfsvers=4", "device": ":/x"}}},
	} {
		name, value, ok := cutVolume(tt.flag)
		if !ok || name != tt.name {
			t.Errorf("cutVolume(%q) = %q, %q, %v, want %q", tt.flag, name, value, ok, tt.name)
			continue
		}
		got, err := parseVolumeAnswer(value)
		if err != nil {
			t.Errorf("parseVolumeAnswer(%q) = %v", value, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("parseVolumeAnswer(%q) differs (-want +got):\n%s", value, diff)
		}
	}
	for _, bad := range []string{"", "name:", "name:a/b", "path:srv", "nfs:nas", "nfs::/x", "driver:", "driver:x,ro", "dir:/x", "empty:x"} {
		if got, err := parseVolumeAnswer(bad); err == nil {
			t.Errorf("parseVolumeAnswer(%q) = %+v, want an error", bad, got)
		}
	}
}
