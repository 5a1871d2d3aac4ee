package backuptest

import (
	"encoding/json"
	"time"

	"github.com/dentropy/dentropycloud/backup"
)

// Entry makes the entry that a journal would keep.
func Entry(step string, data any) (backup.Entry, error) {
	e := backup.Entry{Time: time.Now().UTC(), Step: step}
	if data == nil {
		return e, nil
	}
	raw, err := json.Marshal(data)
	e.Data = raw
	return e, err
}
