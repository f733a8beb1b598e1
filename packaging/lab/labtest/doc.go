// Package labtest gives tests real Debian machines: it drives packaging/lab/lab, the program, and nothing else.
//
// It decides nothing about pim-ssh and never looks inside it: what a test sees is what a person at desk or root at a machine sees,
// exit codes and words. Each Up is a lab of its own, which ends with the test, however the test ends. It is for tests only
// and stands above everything: tests in packaging/lab import it, no program does. Read lab.go first.
package labtest
