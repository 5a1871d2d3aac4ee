package backup

import (
	"fmt"
)

// keepUndo keeps the record of a restore that is done, and ends its journal. The app runs:
// a record that cannot be kept does not cost the restore. Where the journal has it, it stays
// there, and recovery goes on trying to keep it.
func (op *operation) keepUndo(res *RestoreResult, undo *Undo) {
	if undo == nil {
		op.finish(nil)
		return
	}
	err := op.cfg.saveUndo(undo)
	if err == nil {
		res.Undo = undo.ID
		op.finish(nil)
		return
	}
	res.NoUndo, res.Kept = err.Error(), undo.Kept
	again := op.journal != nil && op.journal.has(StepUndo)
	if again {
		res.NoUndo += "; this is tried again, and the restore can be undone once it works"
	}
	op.job.report(Progress{Warning: fmt.Sprintf("this restore cannot be undone: %s", res.NoUndo)})
	if again {
		op.leave(true)
		return
	}
	op.finish(nil)
}
