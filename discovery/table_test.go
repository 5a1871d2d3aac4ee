package discovery_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
)

func TestTablePrecedence(t *testing.T) {
	var tab discovery.Table[string]
	put := func(host string, r discovery.Rule[string]) {
		r.ID = r.Value
		tab.Insert(host, r)
	}
	get := func(r *http.Request) bool { return r.Method == "GET" }
	put("*", discovery.Rule[string]{Path: "/", Value: "all"})
	put("*.ex.test", discovery.Rule[string]{Path: "/", Value: "wild"})
	put("a.ex.test", discovery.Rule[string]{Path: "/", Value: "root"})
	put("a.ex.test", discovery.Rule[string]{Path: "/api/", Value: "api"})
	put("a.ex.test", discovery.Rule[string]{Path: "/api", Value: "get", Accept: get, Narrow: 1})
	put("a.ex.test", discovery.Rule[string]{Path: "/api/v1", Exact: true, Value: "exact"})
	put("a.ex.test", discovery.Rule[string]{Path: "/Api", Value: "case"})
	put("p.ex.test", discovery.Rule[string]{Path: "/only", Value: "only"})
	put("q.ex.test", discovery.Rule[string]{Path: "/", Priority: 5, Value: "first"})
	put("q.ex.test", discovery.Rule[string]{Path: "/deep", Value: "never"})
	tests := []struct{ name, method, host, path, want string }{
		{"exact host", "POST", "a.ex.test", "/x", "root"},
		{"wildcard", "POST", "b.ex.test", "/x", "wild"},
		{"wildcard is one label", "POST", "c.b.ex.test", "/x", "all"},
		{"catch-all", "POST", "other.test", "/", "all"},
		{"longest path", "POST", "a.ex.test", "/api/x", "api"},
		{"prefix itself", "POST", "a.ex.test", "/api", "api"},
		{"by segment", "POST", "a.ex.test", "/apix", "root"},
		{"case-sensitive", "POST", "a.ex.test", "/API", "root"},
		{"other case", "POST", "a.ex.test", "/Api/x", "case"},
		{"narrower matcher", "GET", "a.ex.test", "/api/x", "get"},
		{"exact path", "POST", "a.ex.test", "/api/v1", "exact"},
		{"below an exact path", "POST", "a.ex.test", "/api/v1/x", "api"},
		{"known host does not fall through", "POST", "p.ex.test", "/", ""},
		{"priority beats length", "POST", "q.ex.test", "/deep", "first"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, _, _ := tab.Lookup(tt.host, tt.path, &http.Request{Method: tt.method})
			if got != tt.want {
				t.Errorf("Lookup(%s %s%s) = %q, want %q", tt.method, tt.host, tt.path, got, tt.want)
			}
		})
	}
	tab.Remove("a.ex.test", "/api", false, "api")
	if got, _, _, _ := tab.Lookup("a.ex.test", "/api/x", &http.Request{Method: "POST"}); got != "root" {
		t.Errorf("after Remove got %q, want root", got)
	}
	tab.Remove("*.ex.test", "/", false, "wild")
	tab.Remove("*", "/", false, "all")
	if tab.Known("zz.ex.test") {
		t.Error("a removed wildcard is still known")
	}
}

// TestTableAgainstScan holds the index of hosts with many paths against the scan
// of the sorted list.
func TestTableAgainstScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	segments := []string{"a", "b", "ab", "c"}
	path := func() string {
		var b strings.Builder
		for range rnd.IntN(4) {
			b.WriteString("/" + segments[rnd.IntN(len(segments))])
		}
		return b.String()
	}
	for range 50 {
		var tab discovery.Table[string]
		prefixes := map[string]bool{}
		for range 40 {
			p := path()
			prefixes[p] = true
			tab.Insert("h", discovery.Rule[string]{ID: p, Path: p, Value: p})
		}
		for range 200 {
			p := path() + []string{"", "/"}[rnd.IntN(2)]
			want, found := "", false
			for pre := range prefixes {
				if (p == pre || strings.HasPrefix(p, pre+"/") || pre == "") && (!found || len(pre) > len(want)) {
					want, found = pre, true
				}
			}
			got, _, ok, _ := tab.Lookup("h", p, nil)
			if ok != found || got != want {
				t.Fatalf("Lookup(%q) = %q %v, want %q %v", p, got, ok, want, found)
			}
		}
	}
}

func TestTableConcurrent(t *testing.T) {
	var tab discovery.Table[int]
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			host := fmt.Sprintf("h%d", i)
			for n := range 2000 {
				tab.Insert(host, discovery.Rule[int]{ID: "x", Path: "/", Value: n})
				if n%3 == 0 {
					tab.Remove(host, "/", false, "x")
				}
			}
		})
	}
	tab.Insert("still", discovery.Rule[int]{ID: "s", Path: "/", Value: 7})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if v, _, ok, _ := tab.Lookup("still", "/x", nil); !ok || v != 7 {
				t.Errorf("another host's changes disturbed this one: %v %v", v, ok)
				return
			}
			tab.Lookup("h1", "/", nil)
		}
	})
	wg.Wait()
	close(stop)
	readers.Wait()
}

func TestRequestHost(t *testing.T) {
	for in, want := range map[string]string{
		"Ex.Test": "ex.test", "ex.test:8443": "ex.test", "ex.test.": "ex.test", "[::1]:80": "::1", "[::1]": "::1", "::1": "::1", "": "", ":80": "",
	} {
		if got := discovery.RequestHost(&http.Request{Host: in}); got != want {
			t.Errorf("RequestHost(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("GET", "X-A", "v", "q=1", "^a", "/x")
	f.Fuzz(func(t *testing.T, method, header, value, query, expr, path string) {
		m := discovery.Match{Methods: []string{method}, Headers: []discovery.KeyMatch{{Key: header, Values: []string{value}, Regexp: true}}, Query: []discovery.KeyMatch{{Key: query}}, HostRegexp: expr, PathRegexp: expr}
		match, err := m.Compile(nil)
		if err != nil {
			return
		}
		var tab discovery.Table[int]
		tab.Insert("h", discovery.Rule[int]{ID: "1", Path: path, Accept: match, Value: 1})
		r, err := http.NewRequest("GET", "http://h/?"+query, nil)
		if err != nil {
			return
		}
		tab.Lookup("h", path, r)
	})
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint("hosts=", n), func(b *testing.B) {
			var tab discovery.Table[int]
			hosts := make([]string, n)
			for i := range n {
				hosts[i] = fmt.Sprintf("h%d.example.com", i)
				tab.Insert(hosts[i], discovery.Rule[int]{ID: "x", Path: "/", Value: i})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if _, _, ok, _ := tab.Lookup(hosts[i], "/some/path", nil); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
	for _, n := range []int{4, 5, 6, 200} {
		b.Run(fmt.Sprint("paths=", n), func(b *testing.B) {
			var tab discovery.Table[int]
			paths := make([]string, n)
			for i := range n {
				paths[i] = fmt.Sprintf("/app%d/section", i)
				tab.Insert("h", discovery.Rule[int]{ID: "x", Path: paths[i], Value: i})
			}
			slices.Sort(paths)
			i := 0
			for b.Loop() {
				i = (i + 1) % n
				tab.Lookup("h", paths[i], nil)
			}
		})
	}
}
