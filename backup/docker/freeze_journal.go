package docker

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// The steps of a freeze in the journal.
const (
	// stepHooks comes before the first hook: hooks after it may have to be run.
	stepHooks = "freeze.hooks"
	// stepPlan comes before the first stop.
	stepPlan = "freeze.plan"
	// stepRest comes after each container that has come to rest.
	stepRest = "freeze.rest"
	// stepBack says that all run again.
	stepBack = "freeze.back"
	// stepPosted says that the hooks at the end have been run.
	stepPosted = "freeze.posted"
	// stepLayer names an image that was made of a container's layer.
	stepLayer = "freeze.layer"
)

// journalHooks is the data of stepHooks.
type journalHooks struct {
	Post []hookRun `json:"post"`
}

// journalPlan is the data of stepPlan.
type journalPlan struct {
	// Halt are the containers that come to rest, in the order in which they start.
	Halt []halted `json:"halt"`
	// Guard is the guard's container, "" without one.
	Guard string `json:"guard,omitempty"`
	// Transit is the folder of the operation in the transit volume.
	Transit string        `json:"transit"`
	Health  time.Duration `json:"health"`
}

// journalRest is the data of stepRest.
type journalRest struct {
	ID         string    `json:"id"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	ExitCode   int       `json:"exit_code"`
}

// journalLayer is the data of stepLayer.
type journalLayer struct {
	Image string `json:"image"`
}

// replay is what a journal comes to.
type replay struct {
	plan   *journalPlan
	back   bool
	post   []hookRun // to be run
	layers []string
	// last is when the last entry was written.
	last time.Time
}

// replayFreeze reads the entries of a freeze that was cut off.
func replayFreeze(entries []backup.Entry) replay {
	var r replay
	for _, e := range entries {
		r.last = e.Time
		switch e.Step {
		case stepHooks:
			var d journalHooks
			if json.Unmarshal(e.Data, &d) == nil {
				r.post = d.Post
			}
		case stepPlan:
			var d journalPlan
			if json.Unmarshal(e.Data, &d) == nil {
				r.plan, r.back = &d, false
			}
		case stepRest:
			var d journalRest
			if json.Unmarshal(e.Data, &d) != nil || r.plan == nil {
				continue
			}
			i := slices.IndexFunc(r.plan.Halt, func(h halted) bool { return h.ID == d.ID })
			if i >= 0 && !d.StartedAt.IsZero() {
				r.plan.Halt[i].StartedAt = d.StartedAt
				if r.plan.Halt[i].State == backup.Restarting {
					r.plan.Halt[i].State = backup.Running // its time is certain now
				}
			}
		case stepBack:
			r.back = true
		case stepPosted:
			r.post = nil
		case stepLayer:
			var d journalLayer
			if json.Unmarshal(e.Data, &d) == nil && d.Image != "" {
				r.layers = append(r.layers, d.Image)
			}
		}
	}
	return r
}
