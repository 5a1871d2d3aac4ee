package docker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/dentropy/dentropycloud/backup"
)

func TestPlanRest(t *testing.T) {
	ct := func(name string, state backup.State, mode backup.Mode) backup.Container {
		return backup.Container{Name: name, State: state, Quiesce: backup.Quiesce{Mode: mode, Pre: []backup.Hook{{Label: "x"}}}}
	}
	all := []backup.Container{
		ct("stop", backup.Running, backup.Stop), ct("pause", backup.Running, backup.Pause), ct("hot", backup.Running, backup.Hot),
		ct("asleep", backup.Paused, backup.Stop), ct("exited", backup.Exited, backup.Stop), ct("created", backup.Created, backup.Stop),
		ct("loop", backup.Restarting, backup.Pause), ct("dead", backup.Dead, backup.Stop),
	}
	tests := []struct {
		name string
		mode backup.Mode
		self bool
		want string
		err  string
	}{
		{name: "as labels say", want: "stop:stop pause:pause loop:stop"},
		{name: "all stop", mode: backup.Stop, want: "stop:stop pause:stop hot:stop loop:stop"},
		{name: "all pause", mode: backup.Pause, want: "stop:pause pause:pause hot:pause loop:stop"},
		{name: "all hot", mode: backup.Hot, want: ""},
		{name: "this program's own app", mode: backup.Stop, self: true, want: ""},
		{name: "no mode", mode: "melt", err: "not known"},
	}
	for _, tt := range tests {
		plan, err := planRest(&backup.App{Containers: all, Self: tt.self}, tt.mode)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range plan.halt {
			got = append(got, h.Name+":"+string(h.Mode))
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, g, tt.want)
		}
		if len(plan.pre) != 3 || len(plan.warnings) != 5 {
			t.Errorf("%s: %d hooks and %d warnings, want hooks of what runs only", tt.name, len(plan.pre), len(plan.warnings))
		}
	}
}

func TestConsistencyOf(t *testing.T) {
	uses := func(name string, state backup.State, mode backup.Mode, ro, hook bool) backup.Container {
		c := backup.Container{Name: name, State: state, Quiesce: backup.Quiesce{Mode: mode}, Mounts: []backup.Mount{{Volume: "v", ReadOnly: ro}}}
		if hook {
			c.Quiesce.Pre = []backup.Hook{{}}
		}
		return c
	}
	tests := []struct {
		name string
		list []backup.Container
		want string
	}{
		{"nobody", nil, "stopped"},
		{"stopped", []backup.Container{uses("a", backup.Running, backup.Stop, false, false)}, "stopped"},
		{"one hot", []backup.Container{uses("a", backup.Running, backup.Stop, false, false), uses("b", backup.Running, backup.Hot, false, false)}, "hot"},
		{"a hot reader", []backup.Container{uses("a", backup.Running, backup.Stop, false, false), uses("b", backup.Running, backup.Hot, true, false)}, "stopped"},
		{"hot with a hook", []backup.Container{uses("a", backup.Running, backup.Hot, false, true)}, "hook"},
		{"paused by us", []backup.Container{uses("a", backup.Running, backup.Pause, false, false)}, "paused"},
		{"paused before", []backup.Container{uses("a", backup.Paused, backup.Hot, false, false)}, "paused"},
		{"a hot one that does not run", []backup.Container{uses("a", backup.Exited, backup.Hot, false, false)}, "stopped"},
	}
	for _, tt := range tests {
		if got := consistencyOf(&backup.App{Containers: tt.list}, &backup.Volume{ID: "v"}, ""); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestMine(t *testing.T) {
	then, since := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)
	st := func(status string, at time.Time) *container.State {
		return &container.State{Status: status, Running: status == "running" || status == "paused", Paused: status == "paused", Restarting: status == "restarting", StartedAt: at.Format(time.RFC3339Nano)}
	}
	tests := []struct {
		name string
		h    halted
		st   *container.State
		want bool
	}{
		{"as we left it", halted{Mode: backup.Stop, StartedAt: then}, st("exited", then), true},
		{"somebody started and stopped it", halted{Mode: backup.Stop, StartedAt: then}, st("exited", since), false},
		{"it runs", halted{Mode: backup.Stop, StartedAt: then}, st("running", since), false},
		{"it is being restarted", halted{Mode: backup.Stop, StartedAt: then}, st("restarting", since), false},
		{"we paused it", halted{Mode: backup.Pause, StartedAt: then}, st("paused", then), true},
		{"somebody paused what we did not stop", halted{Mode: backup.Stop, StartedAt: then}, st("paused", then), false},
		{"what we paused was killed", halted{Mode: backup.Pause, StartedAt: then}, st("exited", then), true},
		{"it is to stay down", halted{Mode: backup.Stop, StartedAt: then, NoRestart: true}, st("exited", then), false},
		{"it kept restarting", halted{Mode: backup.Stop, State: backup.Restarting, StartedAt: then}, st("exited", since), true},
	}
	for _, tt := range tests {
		if got := tt.h.mine(tt.st); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestReplayFreeze(t *testing.T) {
	then, later := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 9, 0, time.UTC)
	entry := func(step string, data any) backup.Entry {
		raw, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return backup.Entry{Step: step, Data: raw}
	}
	hooks := entry(stepHooks, journalHooks{Post: []hookRun{{Name: "db"}}})
	plan := entry(stepPlan, journalPlan{Halt: []halted{{ID: "1", State: backup.Restarting, StartedAt: then}, {ID: "2", StartedAt: then}}})
	rest := entry(stepRest, journalRest{ID: "1", StartedAt: later})
	all := []backup.Entry{hooks, plan, rest, entry(stepLayer, journalLayer{Image: "l:1"}), {Step: "odd", Data: []byte("{")}, {Step: stepRest, Data: []byte("7")}}
	r := replayFreeze(all)
	if r.plan == nil || r.back || len(r.post) != 1 || len(r.layers) != 1 {
		t.Fatalf("replay %+v, want a plan that is not back, a hook and a layer", r)
	}
	if h := r.plan.Halt[0]; !h.StartedAt.Equal(later) || h.State != backup.Running {
		t.Errorf("%+v, want the time that was seen after the stop", h)
	}
	if h := r.plan.Halt[1]; !h.StartedAt.Equal(then) {
		t.Errorf("%+v, want the time before", h)
	}
	r = replayFreeze(append(all, entry(stepBack, nil), entry(stepPosted, nil)))
	if !r.back || r.post != nil {
		t.Errorf("replay %+v, want that all is back and no hook is due", r)
	}
	if r = replayFreeze(append(all, entry(stepBack, nil), plan)); r.back {
		t.Error("a second plan counts as back")
	}
	if r = replayFreeze(nil); r.plan != nil || r.post != nil {
		t.Errorf("replay of nothing is %+v", r)
	}
}
