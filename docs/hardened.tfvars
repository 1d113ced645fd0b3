# Every opt-in of SECURITY.md, which says what each adds and costs. Copy this to ENVIRONMENT.tfvars at
# the top, put in your own ARNs and names, and delete what you don't want.

access_log_bucket        = "access-logs-123456789012"
alarm_topic_arn          = "arn:aws:sns:us-east-1:123456789012:alarms"
deletion_protection      = true # destroy fails until this is false again
force_destroy            = false
kms_key_arn              = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
log_retention_days       = 365
permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
point_in_time_recovery   = true
reserved_concurrency     = 10
tracing_mode             = "Active"
