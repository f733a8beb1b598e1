// Package lab is the tests that need real machines: real sshd, sudo, libpam and systemd, on Debian trees booted by the program
// `lab` in this folder. They carry the build tag "lab" and run by `make lab-test`.
//
// The package holds tests only; it decides nothing and no program imports it. The lab itself is shell: read lab, then machine.sh.
// Read lab_test.go first.
package lab
