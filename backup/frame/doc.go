// Package frame compresses a stream in parallel, as zstd frames that do not depend on
// each other, and reads such streams back in parallel.
//
// # Shape
//
// A stream is cut into frames of FrameSize bytes, and SegmentFrames of them make a
// segment. Only the last frame and the last segment are shorter. All segments one after
// the other are one valid zstd stream, as is each of them: zstd -d reads them. A frame
// holds its content size and a checksum, so that any of them can be decoded alone, and
// damage in one is found in that one.
//
// # Writing
//
//	producer fills a buffer ▸ worker compresses it ▸ one goroutine writes frames in
//	order into their segments ▸ one goroutine hashes what was written
//
// A frame that does not shrink in a sample of it is stored as raw blocks, at the speed
// of memory: photos and films gain nothing from a compressor.
//
// There are at most 2*workers+2 buffers of FrameSize, with as much for what they compress
// to, and 5 MiB of state for each worker: MaxWorkers keeps that below 200 MiB. The
// first error of a sink ends everything; no goroutine outlives Close or Abort.
//
// # Reading
//
// A Reader takes any zstd stream. It finds where a frame ends by walking the headers of
// its blocks. A frame of at most ParallelSize bytes goes to a worker as a whole, and
// frames come out in order. A larger one, such as the zstd program writes, is decoded
// as it comes, with a window of at most MaxWindow, the limit of zstd -d. Skippable frames
// are skipped.
//
// Memory does not depend on what a stream claims: a worker's buffer is as large as the
// blocks that are there can come to, at most ParallelSize. Errors are ErrCorrupt with
// the offset of the frame, or io.ErrUnexpectedEOF for a stream that ends within a frame.
//
// # Not guaranteed
//
// A stream that ends between two frames looks complete to a Reader: how many frames
// there must be is known to whoever holds the list of segments. Dictionaries are not
// supported. Equal input gives equal bytes with one version of the compressor only.
package frame
