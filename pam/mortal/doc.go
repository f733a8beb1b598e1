// Package mortal ends a program at each system call it makes, one run for each.
//
// It is for tests of writers that must leave a file old or new: nothing else reaches every moment between two steps. It decides
// nothing about what is right then: the test looks. It sits beside pam/agent and pam/enforce, whose tests alone use it.
//
// Read mortal.go: it is all there is.
package mortal
