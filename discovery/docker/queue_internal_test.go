package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func containerEvent(id, action string, at int64, attrs ...string) events.Message {
	m := events.Message{Type: events.ContainerEventType, Action: events.Action(action), TimeNano: at, Actor: events.Actor{ID: id, Attributes: map[string]string{}}}
	for i := 0; i+1 < len(attrs); i += 2 {
		m.Actor.Attributes[attrs[i]] = attrs[i+1]
	}
	return m
}

func networkEvent(action, container string) events.Message {
	return events.Message{Type: events.NetworkEventType, Action: events.Action(action), TimeNano: 1, Actor: events.Actor{ID: "net", Attributes: map[string]string{"container": container}}}
}

func TestQueueMerges(t *testing.T) {
	at := func(ns int64) time.Time { return time.Unix(0, ns) }
	tests := []struct {
		name string
		in   []events.Message
		want news
	}{
		{
			name: "docker restart",
			in: []events.Message{
				containerEvent("c", "kill", 1, "signal", "15"), containerEvent("c", "die", 2, "exitCode", "0"), networkEvent("disconnect", "c"),
				containerEvent("c", "stop", 3), networkEvent("connect", "c"), containerEvent("c", "start", 4), containerEvent("c", "restart", 5),
			},
			want: news{life: "start", at: at(4), exited: true, killed: true, net: true},
		},
		{
			name: "crash",
			in:   []events.Message{containerEvent("c", "start", 1), containerEvent("c", "die", 2, "exitCode", "3")},
			want: news{life: "die", at: at(2), exit: 3, exited: true},
		},
		{name: "restart alone", in: []events.Message{containerEvent("c", "restart", 5)}, want: news{life: "restart", at: at(5)}},
		{name: "health", in: []events.Message{containerEvent("c", "health_status: unhealthy", 1), containerEvent("c", "health_status: healthy", 2)}, want: news{health: "healthy", healthAt: at(2)}},
		{name: "health as Podman has it", in: []events.Message{containerEvent("c", "health_status", 1, "health_status", "unhealthy")}, want: news{health: "unhealthy", healthAt: at(1)}},
		{name: "death as Podman has it", in: []events.Message{containerEvent("c", "die", 1, "containerExitCode", "2")}, want: news{life: "die", at: at(1), exit: 2, exited: true}},
		{name: "removal as Podman has it", in: []events.Message{containerEvent("c", "remove", 1)}, want: news{life: "destroy", at: at(1)}},
		{name: "rename", in: []events.Message{containerEvent("c", "rename", 1, "name", "new", "oldName", "/old")}, want: news{name: "new"}},
		{name: "update", in: []events.Message{containerEvent("c", "update", 1)}, want: news{update: true}},
		{name: "what is not known", in: []events.Message{containerEvent("c", "checkpoint", 1)}, want: news{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := newQueue(time.Unix(0, 0))
			for _, ev := range tt.in {
				q.push(ev)
			}
			select {
			case <-q.wake:
			default:
				t.Error("nobody is woken")
			}
			b := q.take()
			if len(b.order) != 1 || b.of["c"] == nil {
				t.Fatalf("queue holds %v, want one container", b.order)
			}
			opts := cmp.Options{cmp.AllowUnexported(news{}), cmpopts.IgnoreFields(news{}, "came", "attrs", "netAt")}
			if diff := cmp.Diff(tt.want, *b.of["c"], opts); diff != "" {
				t.Errorf("news (-want +got):\n%s", diff)
			}
			if again := q.take(); len(again.order) > 0 {
				t.Errorf("queue still holds %v", again.order)
			}
		})
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	q := newQueue(time.Unix(0, 0))
	for range 1000 {
		q.push(containerEvent("loops", "die", 1))
		q.push(containerEvent("loops", "start", 2))
	}
	q.push(containerEvent("other", "start", 3))
	q.push(networkEvent("connect", "third"))
	q.push(events.Message{Type: events.NetworkEventType, Action: "create", TimeNano: 1, Actor: events.Actor{ID: "n1"}})
	q.push(events.Message{Type: events.NetworkEventType, Action: "destroy", TimeNano: 1, Actor: events.Actor{ID: "n2"}})
	b := q.take()
	if diff := cmp.Diff([]string{"loops", "other", "third"}, b.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]netNews{{"n1", false}, {"n2", true}}, b.nets, cmp.AllowUnexported(netNews{})); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	if seen, _ := q.newest(); seen != 3 {
		t.Errorf("newest event is of %d, want 3", seen)
	}
}
