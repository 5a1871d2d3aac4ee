package caddymodule

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// meters are the metrics on Caddy's /metrics. They live in the state, and are
// registered anew with each config, so that a reload does not reset them.
type meters struct {
	state *State

	latency      prometheus.Histogram
	provisioning *prometheus.HistogramVec
	holds        *prometheus.CounterVec
}

const metricsNamespace = "dentropy"

func newMeters(s *State) *meters {
	return &meters{
		state: s,
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "event_to_route_seconds",
			Help:    "Time from a source's event to the route being served.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5, 30},
		}),
		provisioning: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "route_provision_seconds",
			Help:    "Time to provision the handler chain of one route with a snippet.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .1, 1},
		}, []string{"result"}),
		holds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "held_requests_total",
			Help: "Requests that met a route without upstream: waited, gave_up, or turned away because the queue was full.",
		}, []string{"result"}),
	}
}

func (m *meters) provisioned(d time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.provisioning.WithLabelValues(result).Observe(d.Seconds())
}

// register makes the metrics part of a config's registry. Registering the same
// collectors in each new registry is what keeps their values.
func (m *meters) register(r *prometheus.Registry) {
	r.MustRegister(m.latency, m.provisioning, m.holds, m)
}

var (
	sourceUp       = prometheus.NewDesc("dentropy_source_up", "Whether the source can be asked.", []string{"source"}, nil)
	sourceObjects  = prometheus.NewDesc("dentropy_source_objects", "Objects of the source with routes or problems.", []string{"source"}, nil)
	sourceEvents   = prometheus.NewDesc("dentropy_source_events_total", "Reports of single objects received from the source.", []string{"source"}, nil)
	sourceLists    = prometheus.NewDesc("dentropy_source_lists_total", "Full lists received from the source.", []string{"source"}, nil)
	routesByState  = prometheus.NewDesc("dentropy_routes", "Routes by state.", []string{"state"}, nil)
	certsByState   = prometheus.NewDesc("dentropy_certificates", "Managed certificates by state.", []string{"state"}, nil)
	heldNow        = prometheus.NewDesc("dentropy_held_requests", "Requests that wait for an upstream at the moment.", nil, nil)
	lastBackupAt   = prometheus.NewDesc("dentropy_backup_last_success_timestamp_seconds", "When the last good backup of the app ended.", []string{"app", "platform"}, nil)
	lastBackupSize = prometheus.NewDesc("dentropy_backup_last_size_bytes", "Size of the last good archive of the app.", []string{"app", "platform"}, nil)
	lastBackupTook = prometheus.NewDesc("dentropy_backup_last_duration_seconds", "How long the last good backup of the app took.", []string{"app", "platform"}, nil)
	lastBackupDown = prometheus.NewDesc("dentropy_backup_last_downtime_seconds", "How long the app was down for its last good backup.", []string{"app", "platform"}, nil)
	lastBackupOK   = prometheus.NewDesc("dentropy_backup_last_ok", "Whether the last backup of the app was good.", []string{"app", "platform"}, nil)
	leftStopped    = prometheus.NewDesc("dentropy_apps_left_stopped", "Apps that an operation may have left stopped; 0 is well.", nil, nil)
	jobsRunning    = prometheus.NewDesc("dentropy_jobs_running", "Backups and restores that are under way.", nil, nil)
	generationsNow = prometheus.NewDesc("dentropy_config_generations", "Configs with our app that are loaded; 2 for a moment during a reload.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *meters) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sourceUp, sourceObjects, sourceEvents, sourceLists, routesByState, certsByState, heldNow, generationsNow,
		lastBackupAt, lastBackupSize, lastBackupTook, lastBackupDown, lastBackupOK, leftStopped, jobsRunning} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m *meters) Collect(c chan<- prometheus.Metric) {
	s := m.state
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, v := range s.registry.Sources() {
		up := 0.0
		if v.State == "connected" {
			up = 1
		}
		gauge(sourceUp, up, v.Name)
		gauge(sourceObjects, float64(v.Objects), v.Name)
		c <- prometheus.MustNewConstMetric(sourceEvents, prometheus.CounterValue, float64(v.Events), v.Name)
		c <- prometheus.MustNewConstMetric(sourceLists, prometheus.CounterValue, float64(v.Lists), v.Name)
	}
	for state, n := range s.registry.Count() {
		gauge(routesByState, float64(n), state)
	}
	for state, n := range s.certs.Counts() {
		gauge(certsByState, float64(n), state)
	}
	gauge(heldNow, float64(s.holding.Load()))
	s.mu.Lock()
	n := len(s.generations)
	s.mu.Unlock()
	gauge(generationsNow, float64(n))
	m.collectBackups(gauge)
}

// collectBackups tells of backups, those of other processes too. Without any there is
// nothing but the zeros.
func (m *meters) collectBackups(gauge func(*prometheus.Desc, float64, ...string)) {
	manager, err := m.state.backups.get()
	if err != nil {
		return // turned off, or not possible: the API says why
	}
	gauge(leftStopped, float64(manager.LeftStopped()))
	gauge(jobsRunning, float64(manager.RunningJobs()))
	runs, err := manager.LastRuns()
	if err != nil {
		m.state.log.Warn("past backups cannot be read", "error", err)
		return
	}
	for _, r := range runs {
		ok := 0.0
		if r.LastError == "" {
			ok = 1
		}
		gauge(lastBackupOK, ok, r.App, r.Platform)
		if r.LastSuccess.IsZero() {
			continue
		}
		gauge(lastBackupAt, float64(r.LastSuccess.UnixMilli())/1000, r.App, r.Platform)
		gauge(lastBackupSize, float64(r.Size), r.App, r.Platform)
		gauge(lastBackupTook, r.Took.Seconds(), r.App, r.Platform)
		gauge(lastBackupDown, r.Downtime.Seconds(), r.App, r.Platform)
	}
}
