// Package pamtest holds the C of pam/module against what it was written for:
// real libpam (through msteinert/pam), real sudo, real sshd and real
// pam-auth-update, with a scripted agent at the other end of the socket.
//
// It decides how the C is compiled for tests (Build) and otherwise only asks. It
// is never imported by a program of ours, never touches this machine's own PAM
// configuration (each test lives in a mount and PID namespace of its own), and leaves
// nothing behind. It needs root, gcc, sudo, sshd and libpam's headers.
//
// Its tests name the FACTS number or the THREATS row they hold. Read build.go
// first, then module_test.go; sandbox_test.go is the machine they run on.
package pamtest
