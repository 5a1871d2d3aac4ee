package discovery_test

import (
	"fmt"
	"testing"

	"github.com/dentropy/dentropycloud/discovery"
)

// TestTableAsterisk: "OPTIONS *" has a path without a slash, which the root rule
// covers however many rules there are.
func TestTableAsterisk(t *testing.T) {
	for _, n := range []int{1, 20} {
		var table discovery.Table[string]
		for i := range n {
			table.Insert("a.test", discovery.Rule[string]{ID: "x", Path: fmt.Sprint("/", i), Value: "path"})
		}
		table.Insert("a.test", discovery.Rule[string]{ID: "root", Path: "/", Value: "root"})
		if v, _, ok, _ := table.Lookup("a.test", "*", nil); !ok || v != "root" {
			t.Errorf("with %d paths: Lookup(\"*\") = %q, %v, want root", n, v, ok)
		}
	}
}
