"""Scripts that take single figures; results/ holds their JSON, dated."""
