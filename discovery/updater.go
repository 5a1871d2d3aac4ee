package discovery

import (
	"cmp"
	"slices"
)

type updater struct {
	r *Registry
	s *sourceState
}

func (u *updater) Set(o Object) {
	u.r.update(func() {
		if u.s.gone {
			return
		}
		u.s.view.Events++
		u.s.view.LastEvent = u.r.opts.Now()
		u.r.setLocked(u.s, o)
	})
}

func (u *updater) Delete(id string) {
	u.r.update(func() {
		u.s.view.Events++
		u.s.view.LastEvent = u.r.opts.Now()
		if o := u.s.objects[id]; o != nil {
			u.r.deleteLocked(o)
		}
	})
}

func (u *updater) Replace(objects []Object) {
	u.r.update(func() {
		if u.s.gone {
			return
		}
		if u.s.view.State != SourceConnected {
			u.r.opts.Log.Info("source connected", "source", u.s.name, "objects", len(objects))
			u.s.view.State, u.s.view.Error, u.s.view.Since = SourceConnected, "", u.r.opts.Now()
			u.r.opts.SourceChanged(u.s.view)
		}
		u.s.view.Lists++
		keep := make(map[string]bool, len(objects))
		for _, o := range objects {
			keep[o.ID] = true
		}
		for id, o := range u.s.objects {
			if !keep[id] {
				u.r.deleteLocked(o)
			}
		}
		// the older first, ties by name, so that the older gets a contested host
		slices.SortStableFunc(objects, func(a, b Object) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
		})
		for _, o := range objects {
			u.r.setLocked(u.s, o)
		}
		u.r.adoptOwnersLocked()
	})
}

func (u *updater) Unknown(err error) {
	u.r.mu.Lock()
	defer u.r.mu.Unlock()
	v := &u.s.view
	news := v.State == SourceConnected || v.Error == ""
	v.State, v.Error = SourceUnknown, err.Error()
	if news {
		u.r.opts.Log.Warn("source cannot be asked, keeping what it last said", "source", u.s.name, "error", err)
		v.Since = u.r.opts.Now()
		u.r.opts.SourceChanged(*v)
	}
}
