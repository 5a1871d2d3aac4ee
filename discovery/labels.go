package discovery

// Dialect is a language of labels. Parse is pure and must not panic whatever the
// labels hold.
type Dialect interface {
	// Name is the dialect's name in the configuration: "native".
	Name() string
	// Claims reports whether the labels hold anything of this dialect. The first
	// dialect of the configured list that claims an object reads it, alone.
	Claims(labels map[string]string) bool
	// Parse reads the routes. Each route with a problem is left out of routes; a
	// problem never concerns another route.
	Parse(in Labelled) (routes []Route, problems []Problem)
}

// Labelled is an object as a dialect sees it.
type Labelled struct {
	// Name is the object's name.
	Name string
	// Labels as the user wrote them.
	Labels map[string]string
	// Ports are the exposed TCP ports, ascending, without duplicates.
	Ports []int
}
