package caddymodule

import "github.com/caddyserver/caddy/v2"

// pool holds the state while any config refers to it: it survives reloads and
// ends with the last config that has our app or one of our modules.
var pool = caddy.NewUsagePool()

const poolKey = "dentropy"

// loadState gives the state and counts the caller as a user; each call needs one
// releaseState.
func loadState() (*State, error) {
	v, _, err := pool.LoadOrNew(poolKey, func() (caddy.Destructor, error) { return newState(), nil })
	if err != nil {
		return nil, err
	}
	return v.(*State), nil
}

func releaseState() error {
	_, err := pool.Delete(poolKey)
	return err
}

// current gives the state of the running config, for callers that live outside a
// config, such as the admin API. Its error is an apiProblem.
func current() (*State, error) {
	var s *State
	pool.Range(func(_, v any) bool { s, _ = v.(*State); return false })
	if s == nil || s.newest.Load() == nil {
		return nil, apiProblem{
			Message: "no config with the dentropy app is running",
			Hint:    "start one with: dentropy up",
		}
	}
	return s, nil
}
