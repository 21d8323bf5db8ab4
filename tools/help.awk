# Make `make help` from the Makefile's own comments: `##@ group`, `target: ## what it does`, `## VARIABLE  meaning`.
BEGIN { FS = ":.*## "; print "make TARGET [VARIABLE=value …]" }
/^##@ / { printf "\n%s\n", substr($0, 5) }
/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $1, $2 }
/^## [A-Z]/ { variables = variables "  " substr($0, 4) "\n" }
END { printf "\nVariables\n%s", variables }
