# Make `make help` from the Makefile's own comments: `##@ group`, `target: ## what it does`, `## VARIABLE  meaning`.
# Groups that only those who work on the kit need begin with `##@@`; `dev=1` shows them as well.
BEGIN { FS = ":.*## "; print "make TARGET [VARIABLE=value …]" }
/^##@/ { shown = dev || !/^##@@/; if (shown) printf "\n%s\n", substr($0, index($0, " ") + 1) }
/^[a-z0-9-]+:.*## / && shown { printf "  %-12s %s\n", $1, $2 }
/^## [A-Z]/ { variables = variables "  " substr($0, 4) "\n" }
END { printf "\nVariables\n%s", variables }
