package backup_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dentropy/dentropycloud/backup"
	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
)

// settingsApp wraps settings in an app.
func settingsApp(settings string) *backup.App {
	app := testApp()
	app.Containers[0].Settings = json.RawMessage(settings)
	return app
}

// text is all that is public of an app.
func text(t testing.TB, app *backup.App) string {
	t.Helper()
	b, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantRoundTrip redacts an app and puts it back. It returns what is public.
func wantRoundTrip(t testing.TB, app *backup.App) (*backup.App, map[string]string) {
	t.Helper()
	before := text(t, app)
	public, secrets := backup.Redact(app)
	if text(t, app) != before {
		t.Error("Redact changed the app that it was given")
	}
	// As in an archive: through JSON.
	var stored *backup.App
	if err := json.Unmarshal([]byte(text(t, public)), &stored); err != nil {
		t.Fatal(err)
	}
	got, err := backup.Unredact(stored, secrets)
	if err != nil {
		t.Fatalf("Unredact = %v", err)
	}
	var a, b any
	if err := json.Unmarshal([]byte(before), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text(t, got)), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("Unredact(Redact(x)) (-want +got):\n%s", cmp.Diff(a, b))
	}
	return public, secrets
}

func TestRedactHides(t *testing.T) {
	const s = "Zq7-hidden-9xW"
	tests := []struct{ name, settings string }{
		{"env", `{"Config":{"Env":["A=` + s + `"]}}`},
		{"env with an equals sign", `{"Config":{"Env":["A=x=` + s + `"]}}`},
		{"password in an env's url, again in the command", `{"Config":{"Env":["DB=postgres://u:` + s + `@h/d"],"Cmd":["run","` + s + `"]}}`},
		{"env again in a check", `{"Config":{"Env":["PASSWORD=` + s + `"],"Healthcheck":{"Test":["CMD-SHELL","check ` + s + `"]}}}`},
		{"flag and value", `{"Config":{"Cmd":["--requirepass","` + s + `"]}}`},
		{"flag with value", `{"Config":{"Cmd":["--admin-password=` + s + `"]}}`},
		{"flag in shell text", `{"Config":{"Cmd":["sh","-c","x --api-token ` + s + ` --y"]}}`},
		{"variable in shell text", `{"Config":{"Cmd":["sh","-c","PGPASSWORD='` + s + `' psql"]}}`},
		{"mysql", `{"Config":{"Healthcheck":{"Test":["CMD-SHELL","mysqladmin ping -uroot -p` + s + `"]}}}`},
		{"redis-cli", `{"Config":{"Healthcheck":{"Test":["CMD-SHELL","redis-cli -a ` + s + ` ping"]}}}`},
		{"curl -u", `{"Config":{"Healthcheck":{"Test":["CMD-SHELL","curl -u admin:` + s + ` http://localhost"]}}}`},
		{"bearer", `{"Config":{"Healthcheck":{"Test":["CMD-SHELL","curl -H 'Authorization: Bearer ` + s + `' http://localhost"]}}}`},
		{"query", `{"Config":{"Labels":{"hook":"https://h/x?a=b&token=` + s + `&c=d"}}}`},
		{"url", `{"Config":{"Labels":{"x":"https://user:` + s + `@h/"}}}`},
		{"url with a token", `{"Config":{"Labels":{"x":"https://` + s + `@github.com/x"}}}`},
		{"label by name", `{"Config":{"Labels":{"my.secret":"` + s + `"}}}`},
		{"basic auth", `{"Config":{"Labels":{"traefik.http.middlewares.a.basicauth.users":"u:$$2y$$05$$` + s + `"}}}`},
		{"hash in a snippet", `{"Config":{"Labels":{"caddyfile":"basic_x { bob $2a$14$` + s + ` }"}}}`},
		{"json in an option", `{"Config":{"Labels":{"x":"{\"password\": \"` + s + `\"}"}}}`},
		{"log driver", `{"HostConfig":{"LogConfig":{"Type":"splunk","Config":{"splunk-token":"` + s + `"}}}}`},
		{"registry", `{"Auth":{"username":"bob","x":"` + s + `"}}`},
		{"volume driver", `{"HostConfig":{"Mounts":[{"VolumeOptions":{"DriverConfig":{"Options":{"anything":"` + s + `"}}}}]}}`},
		{"cifs", `{"HostConfig":{"Mounts":[{"VolumeOptions":{"DriverConfig":{"Options":{"o":"addr=nas,username=` + s + `,password=` + s + `"}}}}]}}`},
		{"key", `{"X":"-----BEGIN RSA PRIVATE KEY-----\nMII` + s + `\n-----END RSA PRIVATE KEY-----"}`},
		{"token by its form", `{"X":"use ghp_` + strings.Repeat("a", 20) + s + `"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			public, secrets := wantRoundTrip(t, settingsApp(tt.settings))
			if got := string(public.Containers[0].Settings); strings.Contains(got, s) {
				t.Errorf("public settings show the secret: %s", got)
			}
			if !strings.Contains(fmt.Sprint(slices.Collect(maps.Values(secrets))), s) {
				t.Errorf("it is not among the secrets: %q", secrets)
			}
		})
	}
}

func TestRedactOptionsLabelsHooks(t *testing.T) {
	const s = "Zq7-hidden-9xW"
	app := testApp()
	app.Volumes[1].Options = map[string]string{"type": "cifs", "device": "//nas/share", "o": "addr=10.0.0.2,username=" + s + ",password=" + s + "1,vers=3"}
	app.Volumes[1].Labels = map[string]string{"api-key": s + "2", "plain": "shown"}
	app.Containers[0].Quiesce.Pre = []backup.Hook{{Command: []string{"/bin/sh", "-c", "mysqldump -p" + s + "3 db"}}}
	app.Containers[0].Quiesce.Post = []backup.Hook{{Command: []string{"x", "--token", s + "4"}}}
	app.Containers[0].Routes = map[string]string{"basic_auth": "u:" + s + "5"}
	app.Networks = []backup.Network{{Name: "n", Labels: map[string]string{"p": "password=" + s + "6"}, Settings: json.RawMessage(`{"token":"` + s + `7"}`)}}
	app.Warnings = []string{"cannot read with password=" + s + "1"}
	public, _ := wantRoundTrip(t, app)
	got := text(t, public)
	if strings.Contains(got, s) {
		t.Errorf("public shows a secret: %s", got)
	}
	for _, want := range []string{"cifs", "//nas/share", "addr=10.0.0.2", "vers=3", "shown", "mysqldump"} {
		if !strings.Contains(got, want) {
			t.Errorf("public does not show %q: %s", want, got)
		}
	}
}

// What is no secret is still readable, and a weak password does not hide the app's name,
// nor give itself away beside it.
func TestRedactShows(t *testing.T) {
	app := settingsApp(`{"Config":{"Env":["POSTGRES_PASSWORD=postgres"],"Cmd":["postgres","-c","shared_buffers=256MB"],"Image":"postgres:16",
		"Labels":{"org.opencontainers.image.authors":"bob","dentropy.host":"a.test"},"X":"$PASSWORD"},"HostConfig":{"Binds":["shop_db:/var/lib/postgres"]}}`)
	public, _ := wantRoundTrip(t, app)
	got := string(public.Containers[0].Settings)
	for _, want := range []string{`"Image":"postgres:16"`, "shared_buffers=256MB", `"bob"`, `"a.test"`, "shop_db:/var/lib/postgres", "POSTGRES_PASSWORD={dentropy-secret:"} {
		if !strings.Contains(got, want) {
			t.Errorf("public does not show %q: %s", want, got)
		}
	}
}

// Text that looks like a reference stays text.
func TestRedactEscapes(t *testing.T) {
	for _, s := range []string{
		"{dentropy-secret:1}", "{dentropy-secret:", "{dentropy-secret:}", "{dentropy-secret:{dentropy-secret:}}", "{dentropy-secret:x", "a{dentropy-secret:999}b",
		"password={dentropy-secret:1}",
	} {
		q, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		app := settingsApp(`{"A":` + string(q) + `,"Config":{"Env":[` + string(q) + `,"P=` + strings.Trim(string(q), `"`) + `"],"Labels":{"password":` + string(q) + `}}}`)
		app.Warnings = []string{s}
		wantRoundTrip(t, app)
	}
}

func TestUnredactHostile(t *testing.T) {
	for name, settings := range map[string]string{
		"unknown":   `{"a":"{dentropy-secret:7}"}`,
		"no number": `{"a":"{dentropy-secret:x}"}`,
		"half":      `{"a":"{dentropy-secret:1"}`,
		"bomb":      `{"a":"` + strings.Repeat("{dentropy-secret:1}", 1000) + `"}`,
	} {
		_, err := backup.Unredact(settingsApp(settings), map[string]string{"1": strings.Repeat("x", 1<<20)})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// randomMark begins the planted secrets: they are found again by their shape.
const randomMark = "Qx9Kz"

// fill sets every field of a value at random.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 6 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<31), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		n := r.IntN(3) + 1
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) + 1 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key, depth+1)
			fill(r, value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(randomText(r))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64N(100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64N(100))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(r.Float64())
	}
}

// randomText is a text with everything that gets in the way.
func randomText(r *rand.Rand) string {
	words := []string{
		"a", "=", " ", "--password", "--password=", "x", "{dentropy-secret:", "}", "{dentropy-secret:1}", `"`, `\`, "<&>", "é", "\u2028", "\x00", ":", "@", "://", "key",
		"$VAR", "'", ",", "token=", "$2y$05$", "redis-cli -a ", "\n", "-----BEGIN PRIVATE KEY-----",
	}
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.String()
}

// Settings with every field filled come back as they were, and no secret is left in what
// is public.
func TestRedactProperty(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 30
	}
	for seed := range n {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		var settings struct {
			Config     container.Config
			HostConfig container.HostConfig
			Extra      map[string]any
		}
		fill(r, reflect.ValueOf(&settings.Config).Elem(), 0)
		fill(r, reflect.ValueOf(&settings.HostConfig).Elem(), 0)
		var planted []string
		plant := func() string {
			s := fmt.Sprintf("%s%d%x", randomMark, len(planted), r.Uint64())
			planted = append(planted, s)
			return s
		}
		settings.Config.Env = append(settings.Config.Env, "A="+plant(), "PASSWORD="+plant(), "URL=mysql://u:"+plant()+"@h")
		settings.Config.Cmd = append(settings.Config.Cmd, "--db-password="+plant(), "--token", plant(), planted[1], "x"+planted[1]+"y")
		settings.Config.Labels["app.secret"] = plant()
		settings.HostConfig.LogConfig.Config["x-token"] = plant()
		settings.Extra = map[string]any{"registry": map[string]any{"auth": []string{plant()}}}
		raw, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		app := settingsApp(string(raw))
		app.Volumes[0].Options = map[string]string{"o": "username=u,password=" + plant(), "opaque": plant()}
		public, _ := wantRoundTrip(t, app)
		got := text(t, public)
		for i, s := range planted {
			if strings.Contains(got, s) {
				t.Errorf("seed %d: secret %d is public: %s", seed, i, got[max(0, strings.Index(got, s)-80):][:120])
			}
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`{"Config":{"Env":["A=b"],"Cmd":["--password","x"]}}`, "hunter2")
	f.Add(`{"a":"{dentropy-secret:1}"}`, "{dentropy-secret:1}")
	f.Add(`[1e400,"\ud800",null,true,{"":{}}]`, "x,password=y")
	f.Fuzz(func(t *testing.T, settings, other string) {
		if !json.Valid([]byte(settings)) {
			return
		}
		app := settingsApp(settings)
		app.Warnings = []string{strings.ToValidUTF8(other, "?")}
		app.Volumes[0].Options = map[string]string{"o": app.Warnings[0], "x": app.Warnings[0]}
		before := text(t, app)
		public, secrets := backup.Redact(app)
		got, err := backup.Unredact(public, secrets)
		if err != nil {
			t.Fatalf("Unredact = %v", err)
		}
		if !sameJSON(t, before, text(t, got)) {
			t.Errorf("Unredact(Redact(x)) = %s, want %s", text(t, got), before)
		}
	})
}

// sameJSON compares two documents with their numbers as they are written.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	da, db := json.NewDecoder(strings.NewReader(a)), json.NewDecoder(strings.NewReader(b))
	da.UseNumber()
	db.UseNumber()
	if err := da.Decode(&x); err != nil {
		t.Fatal(err)
	}
	if err := db.Decode(&y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
