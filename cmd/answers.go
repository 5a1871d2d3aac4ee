package dentropycmd

import "time"

// The answers of the admin API, as far as they are shown. Unknown fields are left
// out and missing ones stay empty: the running one may be newer, or older.

type routesAnswer struct {
	Routes []routeAnswer `json:"routes"`
}

type routeAnswer struct {
	Key   string `json:"key"`
	Group struct {
		Engine  string `json:"engine"`
		Project string `json:"project"`
		Service string `json:"service"`
	} `json:"group"`
	Source    string           `json:"source"`
	Object    string           `json:"object"`
	Hosts     []string         `json:"hosts"`
	Paths     []string         `json:"paths"`
	TLS       string           `json:"tls"`
	Scheme    string           `json:"scheme"`
	State     string           `json:"state"`
	Endpoints []endpointAnswer `json:"endpoints"`
	Problems  []problemAnswer  `json:"problems"`
	Refused   []struct {
		Host   string `json:"host"`
		Path   string `json:"path"`
		Reason string `json:"reason"`
	} `json:"refused"`
	Stale    bool      `json:"stale"`
	LastGood bool      `json:"last_good"`
	Since    time.Time `json:"since"`
}

type endpointAnswer struct {
	Address string `json:"address"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
	Object  string `json:"object"`
	State   string `json:"state"`
	Detail  string `json:"detail"`
}

type problemAnswer struct {
	Route  string `json:"route"`
	Label  string `json:"label"`
	Value  string `json:"value"`
	Reason string `json:"reason"`
	Hint   string `json:"hint"`
}

type sourcesAnswer struct {
	Sources []struct {
		Name      string    `json:"name"`
		State     string    `json:"state"`
		Error     string    `json:"error"`
		Since     time.Time `json:"since"`
		Objects   int64     `json:"objects"`
		Events    int64     `json:"events"`
		LastEvent time.Time `json:"last_event"`
	} `json:"sources"`
}

type certificatesAnswer struct {
	Certificates []struct {
		Host      string    `json:"host"`
		Class     string    `json:"class"`
		State     string    `json:"state"`
		CoveredBy string    `json:"covered_by"`
		NotAfter  time.Time `json:"not_after"`
		Issuer    string    `json:"issuer"`
		LastError string    `json:"last_error"`
		Hint      string    `json:"hint"`
		Attempts  int       `json:"attempts"`
		NextTry   time.Time `json:"next_try"`
	} `json:"certificates"`
}

type whyAnswer struct {
	Host  string `json:"host"`
	Steps []struct {
		Title string `json:"title"`
		State string `json:"state"`
		Text  string `json:"text"`
		Hint  string `json:"hint"`
		// Data holds the labels that were seen.
		Data map[string]any `json:"data"`
	} `json:"steps"`
}
