package backup

import "log/slog"

// PlatformOptions is what every platform that is configured is made with.
type PlatformOptions struct {
	// Name is unique among the platforms of a Manager.
	Name string
	// Helper is the program that runs beside the data, with HelperArgs before its own
	// arguments. Default: this program.
	Helper     string
	HelperArgs []string
	// TransitVolume is where frozen data waits. Default: one for each operation.
	TransitVolume string
	Log           *slog.Logger
}
