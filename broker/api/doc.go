// Package api is what crosses the wire between a broker and those who talk to it: the one table of routes, the shapes
// of every answer, the pinned TLS of both sides, the typed client and the reader of watch streams.
//
// It decides how things are said, never whether they may be: package edge authenticates and authorises, package
// broker judges. What a client renders to a person who is about to sign must come from a dossier it verified itself,
// never from a view's convenience fields, which are only the broker's word.
//
// It sits between edge (which serves these routes) and the programs that call them. Read routes.go first, then view.go
// and frame.go; client.go and watch.go are the calling side.
package api
