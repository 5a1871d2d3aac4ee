package tarx

import (
	"bufio"
	"fmt"
	"strconv"
)

// AlignExtents gives extents as AppendHeader takes them: each grown to whole blocks
// of 512 bytes (within size), those that touch merged, and where there are more than
// MaxExtents those with the smallest holes between them merged too. Bytes of holes that
// come in this way read as zeros. It changes data.
func AlignExtents(data []Extent, size int64) []Extent {
	out := data[:0]
	for _, e := range data {
		if e.Length <= 0 {
			continue
		}
		end := e.Offset + e.Length
		start := e.Offset &^ (blockSize - 1)
		if end = end + int64(padding(end)); end > size {
			end = size
		}
		if n := len(out); n > 0 && start <= out[n-1].Offset+out[n-1].Length {
			out[n-1].Length = max(end-out[n-1].Offset, out[n-1].Length)
			continue
		}
		out = append(out, Extent{start, end - start})
	}
	for gap := int64(4 * blockSize); len(out) > MaxExtents; gap *= 2 {
		out = mergeGaps(out, gap)
	}
	return out
}

// mergeGaps merges extents with at most gap bytes between them.
func mergeGaps(data []Extent, gap int64) []Extent {
	out := data[:1]
	for _, e := range data[1:] {
		last := &out[len(out)-1]
		if e.Offset-(last.Offset+last.Length) <= gap {
			last.Length = e.Offset + e.Length - last.Offset
			continue
		}
		out = append(out, e)
	}
	return out
}

// needsEnd reports whether the map must end with an empty extent at the end of the
// file: without it GNU tar would not restore a hole there.
func needsEnd(h *Header) bool {
	n := len(h.Data)
	return n == 0 || h.Data[n-1].Offset+h.Data[n-1].Length < h.Size
}

// mapSize is the length of the list of extents in whole blocks.
func mapSize(h *Header) int64 {
	count := len(h.Data)
	var n int64
	if needsEnd(h) {
		count++
		n += int64(digits64(h.Size)) + 3
	}
	n += int64(digits(count)) + 1
	for _, e := range h.Data {
		n += int64(digits64(e.Offset)+digits64(e.Length)) + 2
	}
	return n + int64(padding(n))
}

func digits64(n int64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// appendMap appends the list of extents.
func appendMap(b []byte, h *Header) []byte {
	start := len(b)
	count := int64(len(h.Data))
	if needsEnd(h) {
		count++
	}
	line := func(n int64) {
		b = strconv.AppendInt(b, n, 10)
		b = append(b, '\n')
	}
	line(count)
	for _, e := range h.Data {
		line(e.Offset)
		line(e.Length)
	}
	if needsEnd(h) {
		line(h.Size)
		line(0)
	}
	return append(b, zeroBlock[:padding(int64(len(b)-start))]...)
}

// readMap reads the list of extents that stands before the content in format 1.0, and
// returns how long it is with its padding.
func readMap(r *bufio.Reader, most int64) (data []Extent, used int64, err error) {
	number := func() (int64, error) {
		var n int64
		for i := 0; ; i++ {
			if used == most {
				return 0, fmt.Errorf("%w: the list of extents is longer than the entry", ErrHeader)
			}
			c, err := r.ReadByte()
			if err != nil {
				return 0, cutOff(err)
			}
			used++
			switch {
			case c == '\n' && i > 0:
				return n, nil
			case c < '0' || c > '9' || i == 19 || n > (1<<63-1-9)/10:
				return 0, fmt.Errorf("%w: the list of extents holds no number", ErrHeader)
			}
			n = n*10 + int64(c-'0')
		}
	}
	count, err := number()
	if err != nil {
		return nil, used, err
	}
	if count > MaxExtents+1 {
		return nil, used, fmt.Errorf("%w: %d extents are more than %d", ErrHeader, count, MaxExtents)
	}
	data = []Extent{}
	for range count {
		var e Extent
		if e.Offset, err = number(); err != nil {
			return nil, used, err
		}
		if e.Length, err = number(); err != nil {
			return nil, used, err
		}
		data = append(data, e)
	}
	pad := int64(padding(used))
	if used+pad > most {
		return nil, used, fmt.Errorf("%w: the list of extents is longer than the entry", ErrHeader)
	}
	if _, err := r.Discard(int(pad)); err != nil {
		return nil, used, cutOff(err)
	}
	return data, used + pad, nil
}

// readOldMap reads the extents of the old GNU format out of a header and the blocks that
// extend it; used counts the bytes of the latter.
func readOldMap(r *bufio.Reader, header []byte) (data []Extent, size, used int64, err error) {
	const (
		fieldMap, lenMap = 386, 4
		fieldExtended    = 482
		fieldRealSize    = 483
		lenExtension     = 21
		fieldMore        = 504
	)
	if size, err = parseNumber(header[fieldRealSize : fieldRealSize+12]); err != nil {
		return nil, 0, 0, err
	}
	data = []Extent{}
	take := func(list []byte, count int) error {
		for ; count > 0 && list[0] != 0; count, list = count-1, list[24:] {
			var e Extent
			if e.Offset, err = parseNumber(list[:12]); err != nil {
				return err
			}
			if e.Length, err = parseNumber(list[12:24]); err != nil {
				return err
			}
			if data = append(data, e); len(data) > MaxExtents+1 {
				return fmt.Errorf("%w: more than %d extents", ErrHeader, MaxExtents)
			}
		}
		return nil
	}
	if err := take(header[fieldMap:], lenMap); err != nil {
		return nil, 0, 0, err
	}
	var block [blockSize]byte
	for more := header[fieldExtended] != 0; more; more = block[fieldMore] != 0 {
		if err := readBlock(r, &block); err != nil {
			return nil, 0, 0, err
		}
		used += blockSize
		if err := take(block[:], lenExtension); err != nil {
			return nil, 0, 0, err
		}
	}
	return data, size, used, nil
}

// checkMap drops empty extents and refuses a map that is not sorted, overlaps, leaves
// the file or does not match what is stored.
func checkMap(data []Extent, size, stored int64) ([]Extent, error) {
	out := data[:0]
	var end, sum int64
	for _, e := range data {
		if e.Offset < end || e.Length < 0 || e.Offset > size || e.Length > size-e.Offset {
			return nil, fmt.Errorf("%w: extent at %d of length %d in a file of %d bytes", ErrHeader, e.Offset, e.Length, size)
		}
		end = e.Offset + e.Length
		sum += e.Length
		if e.Length > 0 {
			out = append(out, e)
		}
	}
	if sum != stored {
		return nil, fmt.Errorf("%w: extents of %d bytes, but %d are stored", ErrHeader, sum, stored)
	}
	return out, nil
}
