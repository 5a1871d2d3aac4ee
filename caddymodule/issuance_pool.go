package caddymodule

import "sync"

// certTicket is an entry of a queue. It is void when the name has another
// number by the time a worker gets to it.
type certTicket struct {
	n      *certName
	ticket uint64
}

// certPool works on names with a bounded number of goroutines, which exist only
// while there is work. Names that come back after a failure are worked on by
// fewer, so that they cannot keep all of them from the others.
type certPool struct {
	work    func(certTicket)
	workers *sync.WaitGroup
	most    int
	retries int

	mu       sync.Mutex // guards the rest; comes after certStore.mu
	fresh    []certTicket
	again    []certTicket
	running  int
	retrying int // of running
	held     bool
	stopped  bool
}

func newCertPool(workers *sync.WaitGroup, most, retries int, work func(certTicket)) *certPool {
	return &certPool{work: work, workers: workers, most: most, retries: retries}
}

// push queues a name.
func (p *certPool) push(t certTicket, retry bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if retry {
		p.again = append(p.again, t)
	} else {
		p.fresh = append(p.fresh, t)
	}
	p.staffLocked()
}

// first lets a name that is queued be the next. Its old place becomes void when
// a worker takes it from the new one.
func (p *certPool) first(t certTicket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || len(p.fresh) > 0 && p.fresh[0] == t {
		return
	}
	p.fresh = append([]certTicket{t}, p.fresh...)
	p.staffLocked()
}

// pause keeps workers from taking anything up, or lets them again.
func (p *certPool) pause(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	p.staffLocked()
}

func (p *certPool) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.fresh, p.again = nil, nil
}

// staffLocked starts as many workers as there is work for.
func (p *certPool) staffLocked() {
	for {
		t, retry, ok := p.nextLocked()
		if !ok {
			return
		}
		p.workers.Go(func() { p.run(t, retry) })
	}
}

// nextLocked takes the next entry for one more worker.
func (p *certPool) nextLocked() (t certTicket, retry, ok bool) {
	if p.held || p.stopped || p.running >= p.most {
		return t, false, false
	}
	switch {
	case len(p.fresh) > 0:
		t, p.fresh = p.fresh[0], p.fresh[1:]
	case len(p.again) > 0 && p.retrying < p.retries:
		t, p.again, retry = p.again[0], p.again[1:], true
		p.retrying++
	default:
		return t, false, false
	}
	p.running++
	return t, retry, true
}

func (p *certPool) run(t certTicket, retry bool) {
	for ok := true; ok; {
		p.work(t)
		p.mu.Lock()
		p.running--
		if retry {
			p.retrying--
		}
		t, retry, ok = p.nextLocked()
		p.mu.Unlock()
	}
}
