package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// The format of a bbolt file, as far as it is held to what it must be.
const (
	pageHead    = 16 // id, flags, count, overflow
	elementSize = 16 // of a branch page's (pos, ksize, child) and of a leaf page's (flags, pos, ksize, vsize)
	bucketHead  = 16 // root page, sequence; the page itself follows when root is 0
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element

	manyFree = 0xFFFF // a freelist's count that stands in its first element instead
	maxDepth = 32     // of a tree; more is a loop
)

// pages reads a bbolt file without mapping it: nothing in it is believed, so that no damage can be a SIGBUS, a panic or a
// loop. bbolt writes a page without gaps and in one way only; what differs was altered. ErrDisk says so.
type pages struct {
	file io.ReaderAt
	size uint64 // of a page in bytes
	high uint64 // there are so many pages
}

// meta is what a database's newest header says.
type meta struct {
	root, freelist uint64 // pages
	tx             uint64
}

// item is one element of a page.
type item struct {
	key, value []byte
	child      uint64 // of a branch page's
	bucket     bool   // the value is a bucket
}

// page is one page, or the page that stands inside a small bucket's value.
type page struct {
	branch bool
	items  []item
}

// damaged is a page that is not as it was written.
func damaged(id uint64, format string, args ...any) error {
	return fmt.Errorf("page %d: %s: %w", id, fmt.Sprintf(format, args...), ErrDisk)
}

// openPages reads the two headers of a database of so many bytes. bbolt takes turns with them and would quietly go back to
// the older one, and so undo what was acknowledged, when the newer one was harmed: here both must be whole.
func openPages(file io.ReaderAt, length int64) (pages, meta, error) {
	var head [pageHead + metaSize]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return pages{}, meta{}, damaged(0, "%v", err)
	}
	size := uint64(binary.NativeEndian.Uint32(head[pageHead+8:]))
	if size < 1<<10 || size > 1<<16 || size&(size-1) != 0 {
		return pages{}, meta{}, damaged(0, "a page size of %d", size)
	}
	p := pages{file: file, size: size}
	var both [2]meta
	var high [2]uint64
	for i := range both {
		var err error
		if both[i], high[i], err = p.meta(uint64(i)); err != nil {
			return pages{}, meta{}, err
		}
	}
	newest := both[0].tx % 2
	if both[newest].tx < both[1-newest].tx {
		newest = 1 - newest
	}
	if both[newest].tx != both[1-newest].tx+1 || both[newest].tx%2 != newest {
		return pages{}, meta{}, damaged(newest, "headers of writes %d and %d", both[0].tx, both[1].tx)
	}
	p.high = high[newest]
	if uint64(length) < p.high*p.size {
		return pages{}, meta{}, fmt.Errorf("%d bytes of %d: %w", length, p.high*p.size, ErrDisk)
	}
	return p, both[newest], nil
}

// meta reads one header and how many pages it says there are.
func (p pages) meta(id uint64) (meta, uint64, error) {
	var data [pageHead + metaSize]byte
	if _, err := p.file.ReadAt(data[:], int64(id*p.size)); err != nil {
		return meta{}, 0, damaged(id, "%v", err)
	}
	said, sum := data[pageHead:], fnv.New64a()
	sum.Write(said[:metaSize-8])
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	if u64(data[:]) != id || binary.NativeEndian.Uint16(data[8:]) != flagMeta || u32(said) != metaMagic || u32(said[4:]) != metaVersion || u64(said[56:]) != sum.Sum64() || uint64(u32(said[8:])) != p.size {
		return meta{}, 0, damaged(id, "the header was altered")
	}
	return meta{root: u64(said[16:]), freelist: u64(said[32:]), tx: u64(said[48:])}, u64(said[40:]), nil
}

// raw reads a page with what overflows it, and checks that it is the one that was asked for.
func (p pages) raw(id uint64) (data []byte, flags uint16, count uint64, err error) {
	if id < 2 || id >= p.high {
		return nil, 0, 0, damaged(id, "there are %d", p.high)
	}
	data = make([]byte, p.size)
	if _, err := p.file.ReadAt(data, int64(id*p.size)); err != nil {
		return nil, 0, 0, damaged(id, "%v", err)
	}
	flags, count = binary.NativeEndian.Uint16(data[8:]), uint64(binary.NativeEndian.Uint16(data[10:]))
	overflow := uint64(binary.NativeEndian.Uint32(data[12:]))
	if binary.NativeEndian.Uint64(data) != id || overflow >= p.high-id {
		return nil, 0, 0, damaged(id, "its head was altered")
	}
	if overflow > 0 {
		data = slices.Grow(data, int(overflow*p.size))[:(overflow+1)*p.size]
		if _, err := p.file.ReadAt(data[p.size:], int64((id+1)*p.size)); err != nil {
			return nil, 0, 0, damaged(id, "%v", err)
		}
	}
	return data, flags, count, nil
}

// read reads a branch or leaf page. span is how many pages it takes.
func (p pages) read(id uint64) (found page, span uint64, err error) {
	data, flags, count, err := p.raw(id)
	if err != nil {
		return page{}, 0, err
	}
	found, used, err := parsePage(id, data, flags, count)
	span = uint64(len(data)) / p.size
	if err == nil && (used+p.size-1)/p.size != span || err == nil && count == 0 {
		err = damaged(id, "%d elements in %d bytes take %d pages", count, used, span)
	}
	return found, span, err
}

// parsePage reads a page's elements, which stand without gaps and in order. used is how many bytes they end at.
func parsePage(id uint64, data []byte, flags uint16, count uint64) (found page, used uint64, err error) {
	used = pageHead + count*elementSize
	if flags != flagBranch && flags != flagLeaf || used > uint64(len(data)) {
		return page{}, 0, damaged(id, "flags %x, %d elements", flags, count)
	}
	found = page{branch: flags == flagBranch, items: make([]item, count)}
	for i := range found.items {
		at := uint64(pageHead + i*elementSize)
		e := parseElement(data[at:], found.branch)
		if at+e.pos != used || e.keys+e.values > uint64(len(data))-used || e.flags > flagBucket {
			return page{}, 0, damaged(id, "element %d is not as it was written", i)
		}
		middle, end := used+e.keys, used+e.keys+e.values
		one := item{key: data[used:middle], value: data[middle:end], child: e.child, bucket: e.flags == flagBucket}
		if e.keys == 0 || i > 0 && bytes.Compare(found.items[i-1].key, one.key) >= 0 {
			return page{}, 0, damaged(id, "element %d is out of order", i)
		}
		found.items[i], used = one, end
	}
	return found, used, nil
}

// element is what stands in a page's table: where a key is, and how long it and its value are.
type element struct {
	flags             uint32
	pos, keys, values uint64
	child             uint64
}

func parseElement(data []byte, branch bool) element {
	u32 := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(data[at:])) }
	if branch {
		return element{pos: u32(0), keys: u32(4), child: binary.NativeEndian.Uint64(data[8:])}
	}
	return element{flags: uint32(u32(0)), pos: u32(4), keys: u32(8), values: u32(12)}
}

// tree is one bucket: a tree of pages, or one page inside its parent's.
type tree struct {
	pages
	root   uint64 // 0: inline
	inline page
}

// trees returns a database's buckets, which must be these and may be those.
func (p pages) trees(m meta, must, may []string) (map[string]tree, error) {
	root, _, err := p.read(m.root)
	if err != nil {
		return nil, err
	}
	found := map[string]tree{}
	for _, one := range root.items {
		name := string(one.key)
		if root.branch || !one.bucket || !slices.Contains(must, name) && !slices.Contains(may, name) {
			return nil, damaged(m.root, "it lists %q", name)
		}
		if found[name], err = p.tree(m.root, one.value); err != nil {
			return nil, err
		}
	}
	for _, name := range must {
		if _, there := found[name]; !there {
			return nil, damaged(m.root, "it lists no %q", name)
		}
	}
	return found, nil
}

// tree reads a bucket's value.
func (p pages) tree(parent uint64, value []byte) (tree, error) {
	if len(value) < bucketHead {
		return tree{}, damaged(parent, "a bucket of %d bytes", len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		if len(value) > bucketHead {
			return tree{}, damaged(parent, "a bucket of %d bytes with pages of its own", len(value))
		}
		return tree{pages: p, root: root}, nil
	}
	data := value[bucketHead:]
	if len(data) < pageHead {
		return tree{}, damaged(parent, "a bucket of %d bytes", len(value))
	}
	inline, used, err := parsePage(parent, data, binary.NativeEndian.Uint16(data[8:]), uint64(binary.NativeEndian.Uint16(data[10:])))
	if err == nil && (used != uint64(len(data)) || inline.branch) {
		err = damaged(parent, "a bucket inside it was altered")
	}
	return tree{pages: p, inline: inline}, err
}

// leaf returns the items of the leaf page in which a key is, if it is there, and what it passed on the way there. No key is
// larger than all: nil.
func (t tree) leaf(key []byte) (items []item, path []uint64, err error) {
	at := t.inline
	for id := t.root; id != 0; {
		if len(path) == maxDepth {
			return nil, nil, damaged(id, "it is in a loop")
		}
		path = append(path, id)
		if at, _, err = t.read(id); err != nil {
			return nil, nil, err
		}
		if id = 0; at.branch {
			id = at.below(key)
		}
	}
	return at.items, path, nil
}

// below returns the child of a branch page under which a key is.
func (p page) below(key []byte) uint64 {
	i := len(p.items)
	if key != nil {
		i, _ = slices.BinarySearchFunc(p.items, key, func(one item, key []byte) int {
			if bytes.Compare(one.key, key) <= 0 {
				return -1
			}
			return 1
		})
	}
	return p.items[max(i-1, 0)].child
}

// free reads the list of free pages, and what pages the list itself takes.
func (p pages) free(m meta) (free []uint64, own uint64, err error) {
	data, flags, count, err := p.raw(m.freelist)
	if err != nil {
		return nil, 0, err
	}
	own = uint64(len(data)) / p.size
	data = data[pageHead:]
	if count == manyFree {
		count, data = binary.NativeEndian.Uint64(data), data[8:]
	}
	if flags != flagFreelist || count > uint64(len(data))/8 {
		return nil, 0, damaged(m.freelist, "flags %x, %d free pages", flags, count)
	}
	last := uint64(1)
	for ; count > 0; count-- {
		id := binary.NativeEndian.Uint64(data)
		if id <= last || id >= p.high {
			return nil, 0, damaged(m.freelist, "page %d is not free", id)
		}
		free, last, data = append(free, id), id, data[8:]
	}
	return free, own, nil
}

// use is what each page is used for: every page of a whole database has one use.
type use struct {
	pages
	taken []bool
}

func (p pages) use(m meta) (*use, error) {
	u := &use{p, make([]bool, p.high)}
	free, own, err := p.free(m)
	if err != nil {
		return nil, err
	}
	for _, id := range free {
		u.taken[id] = true
	}
	return u, errors.Join(u.take(0, 2), u.take(m.freelist, own))
}

// take gives a page and what follows it a use.
func (u *use) take(id, span uint64) error {
	for ; span > 0; span-- {
		if u.taken[id] {
			return damaged(id, "it is used twice")
		}
		u.taken[id] = true
		id++
	}
	return nil
}

// walk hands every item of a tree to see, in order, and gives its pages their use.
func (u *use) walk(t tree, see func(key, value []byte) error) error {
	if t.root == 0 {
		return u.items(0, t.inline, see)
	}
	return u.under(t.root, nil, nil, 0, see)
}

// under walks the pages below one, whose keys are at least from and less than to.
func (u *use) under(id uint64, from, to []byte, depth int, see func(key, value []byte) error) error {
	at, span, err := u.read(id)
	if err == nil {
		err = u.take(id, span)
	}
	if err != nil {
		return err
	}
	first, last := at.items[0].key, at.items[len(at.items)-1].key
	if bytes.Compare(first, from) < 0 || to != nil && bytes.Compare(last, to) >= 0 || depth > maxDepth {
		return damaged(id, "its keys belong elsewhere")
	}
	if !at.branch {
		return u.items(id, at, see)
	}
	for i, one := range at.items {
		end := to
		if i+1 < len(at.items) {
			end = at.items[i+1].key
		}
		if err := u.under(one.child, one.key, end, depth+1, see); err != nil {
			return err
		}
	}
	return nil
}

func (u *use) items(id uint64, at page, see func(key, value []byte) error) error {
	for _, one := range at.items {
		if one.bucket {
			return damaged(id, "a bucket where none belongs")
		}
		if err := see(one.key, one.value); err != nil {
			return err
		}
	}
	return nil
}

// complete refuses pages that have no use: something that was in the database is cut off.
func (u *use) complete() error {
	for id, taken := range u.taken {
		if !taken {
			return damaged(uint64(id), "nothing leads to it")
		}
	}
	return nil
}
