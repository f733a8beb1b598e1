package main

import "os"

func main() {
	os.Exit(run(realWorld(), os.Args[1:]))
}
