package backup

import (
	"encoding/json"
	"time"
)

// Journal takes down what an operation is about to do. An entry is on disk, with its
// folder, when Append returns.
type Journal interface {
	// Op is the operation's id: 12 lowercase hex digits, unique. Containers, volumes and
	// folders of the operation are labelled or named with it.
	Op() string
	Append(step string, data any) error
}

// Operation is what a journal says about itself.
type Operation struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // backup, restore, undo
	Platform string    `json:"platform"`
	App      string    `json:"app"`
	Time     time.Time `json:"time"`
}

// Entry is one line of a journal.
type Entry struct {
	Time time.Time       `json:"time"`
	Step string          `json:"step"`
	Data json.RawMessage `json:"data,omitempty"`
}
