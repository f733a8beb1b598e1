// Command pim-brokerd is one broker: the cluster's member, its one port, and the sweep, wired together.
//
// It decides where files lie and in which order things start. It holds no rule: who may what is package broker's. Read
// main.go for the words it understands, then wire.go, the only place that touches the real clock, randomness and disk.
package main
