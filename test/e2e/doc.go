// Package e2e holds the end-to-end tests: the real program, started as a user starts
// it, against a real Docker Engine with real containers. It is a module of its own and
// imports nothing of the project: it sees what a user sees.
//
// scripts/e2e (`make e2e`) makes all that is needed and runs the tests inside the
// private engine's network namespace; without that they are skipped.
package e2e
