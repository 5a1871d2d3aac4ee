package docker

import (
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/client"

	"github.com/dentropy/dentropycloud/backup"
)

// TestRealOtherEngine restores onto another engine, with another store for images, which
// DOCKER_TEST_HOST_OTHER names; and from there back.
func TestRealOtherEngine(t *testing.T) {
	host := os.Getenv("DOCKER_TEST_HOST_OTHER")
	if host == "" {
		t.Skip("DOCKER_TEST_HOST_OTHER names no second Docker Engine")
	}
	s := newShop(t)
	p := s.pack(backup.CaptureOptions{Images: "always"})
	first := os.Getenv("DOCKER_TEST_HOST")

	far := s.at(host)
	_, err := far.p.apply(t.Context(), far.readyPlan(p), p.again(), far.applyOptions(), newJournal())
	s.must(err)
	db := far.byName(s.tag + "db")
	far.running(db.ID, far.byName(s.tag+"web").ID)
	if got := far.file(db.ID, "/data/note"); !strings.HasPrefix(got, "start\nend\nstart") || db.Config.Image != s.image {
		t.Errorf("the restored note is %q, the image %s", got, db.Config.Image)
	}
	q := far.pack(backup.CaptureOptions{Images: "always"})
	far.sweep()

	s.sweep()
	back := s.at(first)
	_, err = back.p.apply(t.Context(), back.readyPlan(q), q.again(), back.applyOptions(), newJournal())
	s.must(err)
	db = back.byName(s.tag + "db")
	back.running(db.ID, back.byName(s.tag+"web").ID)
	if got := back.file(db.ID, "/data/note"); strings.Count(got, "start") < 3 || db.Config.Image != s.image {
		t.Errorf("the restored note is %q, the image %s", got, db.Config.Image)
	}
}

// at is the same bed on another engine.
func (b *bed) at(host string) *bed {
	b.t.Helper()
	programs, err := built()
	b.must(err)
	other := &bed{t: b.t, tag: b.tag, image: b.image}
	other.cli, err = client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	b.must(err)
	other.p, err = New(Options{Endpoint: host, HelperBinary: programs["helper"], HelperArgs: []string{"helper"}, TransitVolume: b.tag + "transit"})
	b.must(err)
	b.t.Cleanup(func() { other.sweep(); _ = other.cli.Close(); _ = other.p.Close() })
	return other
}

func (b *bed) readyPlan(p *packed) *backup.Plan {
	b.t.Helper()
	plan := b.plan(p, backup.Answers{OnConflict: "rename"})
	if !plan.Ready() {
		b.t.Fatalf("plan is not ready: %+v %+v", plan.Conflicts, plan.Risks)
	}
	return plan
}
